# lora_joint on one GPU of 24 GB: the language model's matrices in 4 bits, layers computed again in the backward pass,
# the optimizer's states in 8 bits. By tools/analysis_tools/memory_plan.py the peak is 8.0 GiB instead of 23.9.
# It needs bitsandbytes: pip install -r requirements/quantization.txt
_base_ = "./lora_joint.py"

language = dict(precision="int4")
model = dict(module=dict(checkpointing=True))
optim_wrapper = dict(optimizer=dict(type="AdamW8bit"))
