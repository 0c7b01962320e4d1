# A conversation model of real parts, on two CPU cores: SmolLM2-135M-Instruct learns to see by EfficientNet-Lite0, in one
# run with LoRA. bash tools/quickstart.sh --real makes the parts and the data, trains and evaluates.
_base_ = [
    "../_base_/models/smollm2_efficientnet.py",
    "../_base_/datasets/real_images.py",
    "../_base_/schedules/tiny.py",
    "../_base_/default_runtime.py",
]

lr = 1e-3
max_epochs = 1
warmup_iters = 20
# LoRA changes layers that are trained already.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(LoRA=dict(lr_mult=0.5))))
