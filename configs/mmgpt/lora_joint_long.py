# lora_joint_packed with sequences of up to 2,048 tokens instead of 512: four batches a step instead of one, and
# layers are computed again in the backward pass. By tools/analysis_tools/memory_plan.py the peak is 25.6 GiB
# where every sequence is as long as that.
_base_ = "./lora_joint_packed.py"

max_length = 2048
accumulative_counts = 4
warmup_iters = 400  # counted in batches: 100 steps of 4
model = dict(module=dict(checkpointing=True))
train_dataloader = dict(batch_size=4, batch_sampler=dict(language_batch_size=4))
default_hooks = dict(checkpoint=dict(interval=200))
