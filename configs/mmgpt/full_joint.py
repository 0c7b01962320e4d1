# lora_joint without LoRA: the resampler and the gated blocks are trainable, in float32, beside a frozen language model
# in bfloat16. By tools/analysis_tools/memory_plan.py the peak is 32.2 GiB.
_base_ = "./lora_joint.py"

gated = dict(dtype="float32")
model = dict(_base_.model.module, _delete_=True, checkpointing=True)
