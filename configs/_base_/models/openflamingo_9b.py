# OpenFlamingo-9B (CLIP ViT-L/14, LLaMA-7B, a gated block before every 4th layer, 64 latents), with LoRA as in
# MultiModal-GPT.
language_model = "checkpoints/llama-7b_hf"
vision_model = "checkpoints/ViT-L-14"
flamingo_weights = "checkpoints/OpenFlamingo-9B/checkpoint.pt"
needed = {
    "${language_model}": "LLaMA-7B as a Hugging Face folder (config.json, weights, tokenizer)",
    "${vision_model}": "CLIP ViT-L/14 as an open_clip folder (huggingface.co/timm/vit_large_patch14_clip_224.openai)",
    "${flamingo_weights}": "OpenFlamingo-9B v1 (huggingface.co/openflamingo/OpenFlamingo-9B-deprecated)",
}

# What the base is made of, for tools that need no weights (model_converters/weights.py list, import).
sizes = dict(
    vision="ViT-L-14",
    language=dict(
        model_type="llama",
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
    ),
)

vision = dict(type="OpenCLIPVision", path="${vision_model}")
language = dict(path="${language_model}", dtype="bfloat16")
# max_frames and max_media: with a number, embeddings for the frame and for the place of the image.
perceiver = dict(depth=6, num_latents=64, dim_head=64, heads=8, max_frames=None, max_media=None)
gated = dict(every_n_layers=4, dim_head=64, heads=8)
generation = dict(max_new_tokens=128, num_beams=3)

# Fields of peft's LoraConfig. The resampler and the image encoder get none.
lora = dict(
    r=16,
    lora_alpha=16,
    lora_dropout=0.0,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "to_q", "to_kv", "to_out", "ff.1", "ff.3"],
    exclude_modules=r"(vision|perceiver)\..*",
)

# Tokens whose embedding rows are trained too: see lora_joint_tokens.py.
train_tokens = None

model = dict(
    type="LoRAModel",
    module=dict(
        type="Flamingo",
        vision="${vision}",
        language="${language}",
        perceiver="${perceiver}",
        gated="${gated}",
        image_attention="latest",
        weights="${flamingo_weights}",
        feature_cache="${feature_cache}",
        generation="${generation}",
    ),
    lora="${lora}",
    train_tokens="${train_tokens}",
)
