# A model of random weights for tools/analysis_tools/benchmark.py: the shapes of the 9B model, at a size that one
# core computes in milliseconds (LLaMA 512 wide with 8 layers and 2 gated blocks, ViT 256 wide with 6 layers). The
# vocabulary is the tiny base's, of 839 tokens.
_base_ = "./tiny_lora_joint.py"

flamingo_weights = None
prepare_images = dict(size=224)
prompt_template = "instruction"
max_length = 1024
vision = dict(_delete_=True, type="OpenCLIPVision", model="configs/_base_/models/benchmark_tower.json")
language = dict(
    config=dict(
        model_type="llama",
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=2048,
    )
)
perceiver = dict(depth=6, num_latents=64, dim_head=64, heads=8, ff_mult=4)
# Gates are open: with new ones, which are zero and which LoRA freezes, images would not reach the model.
gated = dict(every_n_layers=4, dim_head=64, heads=8, ff_mult=4, gate_init=0.5)
