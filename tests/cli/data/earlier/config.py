_base_ = "./lora_joint.py"

data_root = "/big/data"
language_model = "/big/llama-7b_hf"
needed = {"${language_model}": "LLaMA-7B, from the shelf"}
lr = 5e-4
weight_decay = 0.05
train_tokens = ["<image>"]
lora = dict(r=4, lora_alpha=8)
model = dict(module=dict(reading="next"))
sizes = dict(language=dict(num_hidden_layers=16))
aokvqa = dict(sample=100)
train_dataloader = dict(dataset=dict(visual=["${aokvqa}", "${coco_caption}"], language=["${dolly}"]))
default_hooks = dict(checkpoint=dict(interval=100))
benchmark = "okvqa"
style = "openflamingo"
eval_okvqa = dict(sample=500)
