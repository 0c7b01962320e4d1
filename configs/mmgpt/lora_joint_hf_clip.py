# lora_joint with the image encoder of Hugging Face's CLIP ViT-L/14 (SigLIP and others load the same way).
_base_ = "./lora_joint.py"

vision_model = dict(
    path="checkpoints/clip-vit-large-patch14",
    source="CLIP ViT-L/14 as a Hugging Face folder (huggingface.co/openai/clip-vit-large-patch14)",
)
vision = dict(_delete_=True, type="HFVision", path="${vision_model}")
