# lora_joint with trainable embedding rows of the two new tokens: frozen rows cost OpenFlamingo 4.6 CIDEr and 12.1
# VQAv2 points (arXiv:2308.01390, table 5).
_base_ = "./lora_joint.py"

model = dict(train_tokens=["<image>", "<|endofchunk|>"])
