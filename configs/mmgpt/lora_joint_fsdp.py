# lora_joint_packed with one model that the GPUs share (FSDP2): each holds a shard of every weight, and gathers a layer
# when it computes with it. By tools/analysis_tools/memory_plan.py --world-size 8 --shard each of 8 GPUs takes 13.9 GiB.
_base_ = "./lora_joint_packed.py"

model = dict(module=dict(checkpointing=True))
model_wrapper_cfg = dict(_delete_=True, type="mmgpt.ShardedDataParallel")
# Each process writes its shard of a checkpoint.
default_hooks = dict(checkpoint=dict(sharded=True))
