# OpenFlamingo-9B (CLIP ViT-L/14, LLaMA-7B, a gated block before every 4th layer, 64 latents), with LoRA as in
# MultiModal-GPT.
language_model = dict(
    path="checkpoints/llama-7b_hf", source="LLaMA-7B as a Hugging Face folder (config.json, weights, tokenizer)"
)
vision_model = dict(
    path="checkpoints/ViT-L-14",
    source="CLIP ViT-L/14 as an open_clip folder (huggingface.co/timm/vit_large_patch14_clip_224.openai)",
)
flamingo_weights = dict(
    path="checkpoints/OpenFlamingo-9B/checkpoint.pt",
    source="OpenFlamingo-9B v1 (huggingface.co/openflamingo/OpenFlamingo-9B-deprecated)",
)

vision = dict(type="OpenCLIPVision", path="${vision_model}")
language = dict(path="${language_model}", dtype="bfloat16")
# With numbers for max_frames and max_media, the resampler has embeddings of the frame and of the image's position.
perceiver = dict(depth=6, num_latents=64, dim_head=64, heads=8, max_frames=None, max_media=None)
gated = dict(every_n_layers=4, dim_head=64, heads=8)
generation = dict(max_new_tokens=128, num_beams=3)

# The keys are fields of peft's LoraConfig. The resampler and the image encoder get no LoRA.
lora = dict(
    r=16,
    lora_alpha=16,
    lora_dropout=0.0,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "to_q", "to_kv", "to_out", "ff.1", "ff.3"],
    exclude_modules=r"(vision|perceiver)\..*",
)

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
    # Tokens whose embedding rows are trainable too: see lora_joint_tokens.py.
    train_tokens=None,
)
