# lora_joint_packed with a model that the GPUs share between them (FSDP2): each holds a part of every weight, and gathers
# a layer when that layer computes. By tools/analysis_tools/memory_plan.py --world-size 8 --shard ...
_base_ = "./lora_joint_packed.py"

model = dict(module=dict(checkpointing=True))
model_wrapper_cfg = dict(_delete_=True, type="mmgpt.ShardedDataParallel")
