"""Flamingo, its components, and the LoRA wrapper."""

from mmgpt.utils.lazy_names import lazy_names

MODULES = {
    "Flamingo": "flamingo",
    "GatedCausalLM": "gated_lm",
    "GatedCrossAttentionBlock": "gated_lm",
    "GatedDecoderLayer": "gated_lm",
    "HFVision": "vision",
    "LoRAModel": "lora",
    "MMPretrainVision": "vision",
    "OpenCLIPVision": "vision",
    "PerceiverResampler": "perceiver",
    "TimmVision": "vision",
    "flamingo_of": "lora",
    "media_mask": "media",
}
__all__ = list(MODULES)
# The data needs some modules of this package, and none of the model itself.
__getattr__ = lazy_names(__name__, MODULES)
