"""Weight files: key maps of published layouts, safe reading, checks, strict loading, writing, sharded checkpoints."""
