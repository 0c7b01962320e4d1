# benchmark.py at the size of a test, for trying out what measures the larger ones:
# python tools/analysis_tools/gpu_check.py --device cpu --tiny
_base_ = "./benchmark.py"

prepare_images = dict(size=64)
vision = dict(model="configs/_base_/models/tiny_tower.json", layer=2)
language = dict(
    config=dict(hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=2),
)
perceiver = dict(depth=1, num_latents=4, dim_head=8, heads=2)
gated = dict(every_n_layers=2, dim_head=16, heads=2)
lora = dict(r=2)
