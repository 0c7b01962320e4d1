# lora_joint with as many samples a step in one batch of packed rows, instead of 16 batches of one sample each: the same
# steps up to rounding. For speed, see also `compile` in docs/training.md.
_base_ = "./lora_joint.py"

row_length = 2048
accumulative_counts = 1
warmup_iters = 100  # counted in batches, each of which is a step here
train_dataloader = dict(
    batch_size=16, batch_sampler=dict(language_batch_size=16), collate_fn=dict(row_length="${row_length}")
)
default_hooks = dict(checkpoint=dict(interval=50))
