# lora_joint without the language-only instructions.
_base_ = "./lora_joint.py"

train_dataloader = dict(dataset=dict(language=[]), batch_sampler=dict(language_batch_size=0))
