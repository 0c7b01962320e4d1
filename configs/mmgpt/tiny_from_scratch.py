# lora_from_scratch.py at 1/5000 of the size: the tiny base without its resampler and gated blocks, over the tiny world.
_base_ = "./tiny_lora_joint.py"

flamingo_weights = None
gated = dict(gate_init=0.5)
lora = dict(target_modules="all-linear")
model = dict(train=["perceiver", "gated"])
lr = 1e-3
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(perceiver=dict(lr_mult=2), gated=dict(lr_mult=2))))
warmup_iters = 200
max_epochs = 6
