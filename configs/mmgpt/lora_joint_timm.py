# lora_joint with CLIP ViT-L/14 from timm, by name: the same weights. timm says how images are prepared.
# The Flamingo weights fit this encoder's features only; any other encoder needs a resampler that is trained for it.
_base_ = "./lora_joint.py"

vision_model = "vit_large_patch14_clip_quickgelu_224.openai"
vision = dict(_delete_=True, type="TimmVision", model="${vision_model}")
prepare_images = dict(_delete_=True, type="PrepareImages", preprocessing="${vision}")
