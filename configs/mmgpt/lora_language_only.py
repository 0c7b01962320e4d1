# lora_joint without the visual instructions: one epoch is one pass over the language data.
_base_ = "./lora_joint.py"

train_dataloader = dict(dataset=dict(visual=[]))
