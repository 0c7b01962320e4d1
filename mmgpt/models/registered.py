"""All components of this package that a config can name: importing this module registers them."""

from .flamingo import Flamingo
from .gated_lm import GatedCausalLM, GatedCrossAttentionBlock
from .lora import LoRAModel
from .perceiver import PerceiverResampler
from .vision import HFVision, MMPretrainVision, OpenCLIPVision, TimmVision

__all__ = [
    "Flamingo",
    "GatedCausalLM",
    "GatedCrossAttentionBlock",
    "HFVision",
    "LoRAModel",
    "MMPretrainVision",
    "OpenCLIPVision",
    "PerceiverResampler",
    "TimmVision",
]
