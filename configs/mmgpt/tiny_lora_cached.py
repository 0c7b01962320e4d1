# tiny_lora_joint on features of its frozen image encoder, which are computed once, before training:
#   python tools/dataset_converters/cache_features.py configs/mmgpt/tiny_lora_cached.py
_base_ = "./tiny_lora_joint.py"

feature_cache = "work_dirs/tiny_features"
image_steps = "${feature_steps}"
