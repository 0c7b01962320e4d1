# lora_joint on OpenFlamingo-9B v2: MPT-7B, a gated block before every 4th layer.
_base_ = "./lora_joint.py"

language_model = dict(path="checkpoints/mpt-7b", source="huggingface.co/mosaicml/mpt-7b")
flamingo_weights = dict(
    path="checkpoints/OpenFlamingo-9B-vitl-mpt7b/checkpoint.pt",
    source="huggingface.co/openflamingo/OpenFlamingo-9B-vitl-mpt7b",
)
_attention_and_feed_forward = ["Wqkv", "out_proj", "up_proj", "down_proj"]
lora = dict(target_modules=[*_attention_and_feed_forward, "to_q", "to_kv", "to_out", "ff.1", "ff.3"])
