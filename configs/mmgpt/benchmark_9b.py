# Random weights of OpenFlamingo-9B's sizes (LLaMA-7B, CLIP ViT-L/14, 8 gated blocks; the vocabulary is the tiny base's:
# tables of 839 tokens instead of 32,003) in bfloat16, for a GPU of 80 GB:
# python tools/analysis_tools/benchmark.py configs/mmgpt/benchmark_9b.py --only training decoding --lora merged
_base_ = "./benchmark.py"

vision = dict(model="ViT-L-14", dtype="bfloat16")
language = dict(
    dtype="bfloat16",
    config=dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32),
)
lora = dict(r=16, lora_alpha=16)
