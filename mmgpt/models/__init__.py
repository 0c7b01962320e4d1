"""Flamingo, its components, and the LoRA wrapper."""

from .flamingo import Flamingo
from .gated_lm import GatedCausalLM, GatedCrossAttentionBlock, GatedDecoderLayer
from .lora import LoRAModel, flamingo_of
from .media import media_mask
from .perceiver import PerceiverResampler
from .vision import HFVision, MMPretrainVision, OpenCLIPVision, TimmVision

__all__ = [
    "Flamingo",
    "GatedCausalLM",
    "GatedCrossAttentionBlock",
    "GatedDecoderLayer",
    "HFVision",
    "LoRAModel",
    "MMPretrainVision",
    "OpenCLIPVision",
    "PerceiverResampler",
    "TimmVision",
    "flamingo_of",
    "media_mask",
]
