# The same model at 1/5000 of the size, on the base that projects/tiny_world makes.
_base_ = "./openflamingo_9b.py"

language_model = "checkpoints/tiny/language"
vision_model = "checkpoints/tiny/vision"
flamingo_weights = "checkpoints/tiny/flamingo.safetensors"

# The features are those of the encoder's second stage of four: 8 x 8 patches of 8 pixels.
vision = dict(_delete_=True, type="OpenCLIPVision", path="${vision_model}", layer=2)
language = dict(_delete_=True, path="${language_model}")
perceiver = dict(depth=2, num_latents=16, dim_head=32, heads=4, ff_mult=2)
gated = dict(every_n_layers=1, dim_head=32, heads=4, ff_mult=2)
generation = dict(max_new_tokens=64, num_beams=1)
lora = dict(lora_alpha=64)
