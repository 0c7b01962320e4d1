"""mmgpt for transformers: importing this package lets transformers' Auto classes and pipelines open its models."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor

from .collator import MMGPTCollator
from .modeling import MMGPTConfig, MMGPTForConditionalGeneration
from .processing import MMGPTImageProcessor, MMGPTProcessor

__all__ = ["MMGPTCollator", "MMGPTConfig", "MMGPTForConditionalGeneration", "MMGPTImageProcessor", "MMGPTProcessor"]

AutoConfig.register(MMGPTConfig.model_type, MMGPTConfig, exist_ok=True)
AutoModel.register(MMGPTConfig, MMGPTForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(MMGPTConfig, MMGPTForConditionalGeneration, exist_ok=True)
AutoProcessor.register(MMGPTConfig, MMGPTProcessor, exist_ok=True)
BACKENDS = {"torchvision": MMGPTImageProcessor, "pil": MMGPTImageProcessor}
AutoImageProcessor.register(MMGPTConfig, image_processor_classes=BACKENDS, exist_ok=True)
