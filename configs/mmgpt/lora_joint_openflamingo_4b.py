# lora_joint on OpenFlamingo-4B v2: RedPajama-INCITE 3B (GPT-NeoX), a gated block before every 2nd layer.
_base_ = "./lora_joint.py"

language_model = dict(
    path="checkpoints/RedPajama-INCITE-Instruct-3B-v1",
    source="huggingface.co/togethercomputer/RedPajama-INCITE-Instruct-3B-v1",
)
flamingo_weights = dict(
    path="checkpoints/OpenFlamingo-4B-vitl-rpj3b-langinstruct/checkpoint.pt",
    source="huggingface.co/openflamingo/OpenFlamingo-4B-vitl-rpj3b-langinstruct",
)
gated = dict(every_n_layers=2)
_attention_and_feed_forward = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
lora = dict(target_modules=[*_attention_and_feed_forward, "to_q", "to_kv", "to_out", "ff.1", "ff.3"])
