# lora_joint.py at 1/5000 of the size: LoRA on the tiny base, over the tiny world, in three minutes on two CPU cores.
_base_ = [
    "../_base_/models/tiny_flamingo.py",
    "../_base_/datasets/tiny_world.py",
    "../_base_/schedules/tiny.py",
    "../_base_/default_runtime.py",
]
max_epochs = 1
default_hooks = dict(
    checkpoint=dict(interval=100),
    answers=dict(type="AnswersHook", loader="${test_dataloader}", count=4, interval=200),
)
