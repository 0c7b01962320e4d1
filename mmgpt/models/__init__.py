"""Flamingo, its components, and the LoRA wrapper."""

from .flamingo import Flamingo
from .gated_lm import GatedCausalLM, GatedCrossAttentionBlock, GatedDecoderLayer
from .lora import LoRAModel, flamingo_of
from .media import media_mask
from .patch_classifier import PatchClassifier
from .perceiver import PerceiverResampler
from .vision.encoders import HFVision, MMPretrainVision, OpenCLIPVision

__all__ = [
    "Flamingo",
    "GatedCausalLM",
    "GatedCrossAttentionBlock",
    "GatedDecoderLayer",
    "HFVision",
    "LoRAModel",
    "MMPretrainVision",
    "OpenCLIPVision",
    "PatchClassifier",
    "PerceiverResampler",
    "flamingo_of",
    "media_mask",
]
