# lora_joint for a base without OpenFlamingo's weights, any language model and image encoder: a new resampler and new
# gated blocks are trained in full beside LoRA, in one run.
_base_ = "./lora_joint.py"

flamingo_weights = None
# With the class's default of 0 a new block changes nothing at first, and its attention gets no gradient before the gate
# has moved. At 0.5 it learns from the first step.
gated = dict(gate_init=0.5)
# The linear layers of the language model, whatever their names: the gated blocks are trained in full.
lora = dict(target_modules="all-linear")
model = dict(train=["perceiver", "gated"])
# New weights need larger steps than LoRA on trained ones: 1e-4, at which OpenFlamingo was trained, beside 1e-5.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(perceiver=dict(lr_mult=10), gated=dict(lr_mult=10))))
