# lora_joint with mmpretrain's VisionTransformer and its CLIP ViT-L/14 weights.
_base_ = "./lora_joint.py"

vision_model = dict(
    path="checkpoints/clip-vit-large-p14_openai-pre.pth",
    source="CLIP ViT-L/14 of mmpretrain's model zoo (clip-vit-large-p14)",
)
vision = dict(_delete_=True, type="MMPretrainVision", arch="large", quick_gelu=True, path="${vision_model}")
