# The first stage for a base without OpenFlamingo's weights: a new resampler and new gated blocks learn to show images
# to a frozen language model, without LoRA. lora_from_scratch.py does this and LoRA in one run; align.py is for a base
# that several tunings are to start from: `weights.py base` writes the trained components, in float32, as its
# flamingo_weights.
_base_ = "./full_joint.py"

flamingo_weights = None
# New weights need larger steps than LoRA on trained ones. OpenFlamingo was trained at this rate (arXiv:2308.01390).
lr = 1e-4
# With the class's default of 0 a new block changes nothing at first, and its attention gets no gradient before the gate
# has moved. At 0.5 it learns from the first step.
gated = dict(gate_init=0.5)
