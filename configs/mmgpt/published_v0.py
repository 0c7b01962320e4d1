# MultiModal-GPT as it was published: its LoRA weights on OpenFlamingo-9B v1, read and answered as its own code does.
_base_ = "./lora_joint.py"

lora_weights = "checkpoints/mmgpt-lora-v0-release.pt"
needed = {"${lora_weights}": "LoRA weights of MultiModal-GPT v0 (download.openmmlab.com/mmgpt/v0)"}
load_from = "${lora_weights}"

# In the published code a token attends to the next image, and an `<image>` token to its own.
model = dict(module=dict(image_attention="next"))
# The tokenizer of 2023: no white space around `<image>`, prompt and answer in one piece.
tokenization = "stripped"
# transformers of 2023 scored beams over the whole text, and the published code suppresses no token.
generation = dict(beam_scores="text", suppress_tokens=None)
