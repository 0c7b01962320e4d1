"""Quantization of a language model's frozen matrices to 8 or 4 bits (bitsandbytes; arXiv:2208.07339, 2305.14314).

For answering on a CPU, where bitsandbytes is slower than float32, 8 bits are those of `cpu_linear.Int8Linear`.
"""

import logging
from collections.abc import Iterator

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from mmgpt.models.gated_lm import gated_layers
from mmgpt.utils.precisions import QUANTIZED

from .cpu_linear import Int8Linear

# Bytes per weight. NF4 takes half a byte, and a scale of 8 bits for 64 weights; the scales of scales are negligible.
BYTES = {"int8": 1.0, "int4": 0.5 + 1 / 64}


def check_quantized(precision: str) -> None:
    """Raises a ValueError when there is no such precision, or bitsandbytes is not installed."""
    if precision not in QUANTIZED:
        raise ValueError(f"precision={precision!r}: choose one of {', '.join(QUANTIZED)}")
    try:
        import bitsandbytes  # noqa: F401 imported only to see whether it is installed
    except ImportError as error:
        raise ValueError(
            f"precision={precision!r} needs bitsandbytes: pip install -r requirements/quantization.txt"
        ) from error


def quantize(language: nn.Module, precision: str, device: str | torch.device | None = None) -> None:
    """Quantizes the linear layers of the language model's decoder layers, never those of gated blocks or LoRA.

    bitsandbytes quantizes a layer when it is moved to a device: to `device`, or else when the model is next moved.
    """
    # bitsandbytes logs at each product that LLM.int8() computes outliers in float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    for decoder in decoder_layers(language):
        for parent, name, linear in list(_linear_layers(decoder)):
            setattr(parent, name, _quantized_layer(linear, precision))
        if device is not None:
            decoder.to(device)


def quantize_for_cpu(language: nn.Module) -> None:
    """Replaces the linear layers of the decoder layers, and the output head, by Int8Linear; no gated block or LoRA."""
    for decoder in decoder_layers(language):
        for parent, name, linear in list(_linear_layers(decoder)):
            setattr(parent, name, Int8Linear(linear))
    head = language.get_output_embeddings()
    if isinstance(head, nn.Linear):
        language.set_output_embeddings(Int8Linear(head))


def is_quantized(model: nn.Module) -> bool:
    """Whether a model has quantized layers."""
    return any(
        isinstance(module, Int8Linear) or type(module).__module__.startswith("bitsandbytes.")
        for module in model.modules()
    )


def decoder_layers(language: nn.Module) -> list[nn.Module]:
    """The language model's decoder layers, without the gated blocks between them."""
    blocks = {module for layer in gated_layers(language) for module in layer.gated.modules()}
    layers = (layer for layer in language.modules() if isinstance(layer, GradientCheckpointingLayer))
    return [layer for layer in layers if layer not in blocks]


def quantized_parameters(language: nn.Module) -> list[nn.Parameter]:
    """The weights that `quantize` would quantize."""
    return [linear.weight for layer in decoder_layers(language) for _, _, linear in _linear_layers(layer)]


def _linear_layers(layer: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """The nn.Linear modules of a decoder layer without LoRA's, each with its parent module and its name there."""
    for path, parent in layer.named_modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and ".lora_" not in f".{path}":
                yield parent, name, child


def _quantized_layer(linear: nn.Linear, precision: str) -> nn.Linear:
    """A bitsandbytes layer with the weights of a linear one, which are quantized when it is moved to a device."""
    from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit

    sizes = dict(input_features=linear.in_features, output_features=linear.out_features, bias=False, device="meta")
    # LLM.int8() quantizes weights only when they are moved from the CPU.
    weight = linear.weight.data.cpu()
    if precision == "int8":
        layer = Linear8bitLt(**sizes, has_fp16_weights=False, threshold=6.0)
        layer.weight = Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        layer = Linear4bit(**sizes, compute_dtype=weight.dtype, quant_type="nf4")
        layer.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", module=layer)
    layer.bias = linear.bias
    return layer
