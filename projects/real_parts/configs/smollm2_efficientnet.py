# SmolLM2-135M-Instruct with EfficientNet-Lite0, as projects/real_parts makes them: a new resampler, new gated blocks
# before every tenth layer, and LoRA.
_base_ = "../../../configs/_base_/models/openflamingo_9b.py"

language_model = dict(path="checkpoints/real/language", source="projects/real_parts/README.md")
vision_model = dict(path="checkpoints/real/vision", source="projects/real_parts/README.md")
flamingo_weights = None

# The features of the stage at a 16th of the images' size: 14 x 14 positions, in which colors are still to be seen.
vision = dict(_delete_=True, type="TimmVision", path="${vision_model}", layer=3)
perceiver = dict(depth=2, num_latents=16)
# A gate of 0.5 lets images in from the first step: at 0 a block gets no gradient before its gate has moved.
gated = dict(every_n_layers=10, gate_init=0.5)
generation = dict(max_new_tokens=64, num_beams=1)
lora = dict(lora_alpha=32, target_modules="all-linear")
model = dict(train=["perceiver", "gated"])
