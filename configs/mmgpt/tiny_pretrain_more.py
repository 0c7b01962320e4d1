# A second, slower pass of tiny_pretrain.py, over new images, from the base that the first one made.
_base_ = "./tiny_pretrain.py"

flamingo_weights = "checkpoints/tiny/flamingo.safetensors"
language = dict(_delete_=True, path="${language_model}")
data_root = "data/tiny_pretrain_more"
lr = 1.5e-3
max_epochs = 5
