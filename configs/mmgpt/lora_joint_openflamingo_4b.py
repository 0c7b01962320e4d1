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
sizes = dict(
    language=dict(
        _delete_=True,
        model_type="gpt_neox",
        vocab_size=50277,
        hidden_size=2560,
        intermediate_size=10240,
        num_hidden_layers=32,
        num_attention_heads=32,
        rotary_pct=1.0,
        use_parallel_residual=False,
        tie_word_embeddings=False,
    )
)
