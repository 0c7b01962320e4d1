# A conversation model of real parts: SmolLM2-135M-Instruct learns to see by EfficientNet-Lite0, in one run with LoRA.
# The rates are a first guess: see ../README.md, which also says how the parts and the data are made.
_base_ = [
    "./smollm2_efficientnet.py",
    "./real_images.py",
    "../../../configs/_base_/schedules/tiny.py",
    "../../../configs/_base_/default_runtime.py",
]

lr = 1e-3
max_epochs = 1
warmup_iters = 20
# LoRA changes layers that are trained already.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(LoRA=dict(lr_mult=0.5))))
