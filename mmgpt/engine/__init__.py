"""Training and evaluation on MMEngine: runner, loops, optimizer wrappers, hooks, resumable and safe checkpoints."""
