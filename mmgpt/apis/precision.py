"""A tuned model made ready to answer: LoRA merged into the weights, which are of the wanted precision."""

import logging
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from mmgpt.apis.build import build_model, find_device
from mmgpt.models import LoRAModel
from mmgpt.models.gated_lm import GatedCrossAttentionBlock

FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
QUANTISED = ("int8", "int4")


def build_for_serving(
    cfg: Config,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    merge: bool = True,
) -> nn.Module:
    """`build_model`, then `for_serving`, without a copy of the language model in another precision on the way.

    For 'int8' and 'int4' the model is built on the CPU, so that the GPU never holds more than the quantised weights,
    the parts that stay bfloat16, and one layer.

    Args:
        cfg, checkpoint, device: as for `build_model`.
        precision, merge: as for `for_serving`.

    Raises:
        FileNotFoundError, ValueError: as these two say; of a wrong precision or device before anything is built.
    """
    check_precision(precision)
    device = str(find_device(device))
    if precision is not None:
        cfg = _loaded_as(cfg, precision if precision in FLOATS else "bfloat16")
    model = build_model(cfg, checkpoint, "cpu" if precision in QUANTISED else device)
    return for_serving(model, precision, merge, device)


def for_serving(
    model: nn.Module, precision: str | None = None, merge: bool = True, device: str | None = None
) -> nn.Module:
    """A built and loaded model as it answers fastest; it is changed in place, and cannot be trained any more.

    Args:
        model: a Flamingo, or a LoRAModel around one. What has no LoRA has nothing to merge.
        precision: 'float32' or 'bfloat16' for every weight; 'int8' or 'int4' (bitsandbytes' LLM.int8(), and NF4 with
            double quantisation) for the matrices in the language model's own layers, and bfloat16 for the rest: the
            embedding and the head, which every token goes through unprotected by a residual stream, the gated blocks
            and the image parts, which hold what was tuned. None leaves the weights as they are.
        merge: whether LoRA updates are added to the weights, in the weights' dtype, before they are quantised.
        device: where the model answers; None is where it is.

    Raises:
        ValueError: the precision is unknown, or needs bitsandbytes, which is not installed.
    """
    check_precision(precision)
    device = next(model.parameters()).device if device is None else device
    if merge and isinstance(model, LoRAModel):
        model = model.peft.merge_and_unload()
    if precision is not None:
        _cast(model, FLOATS.get(precision, torch.bfloat16))
    if precision in QUANTISED:
        flamingo = model.module if isinstance(model, LoRAModel) else model
        _quantise(flamingo.language.model, precision, device)
    return model.to(device).eval()


def check_precision(precision: str | None) -> None:
    """Raises a ValueError when there is no such precision, or when what it needs is not installed."""
    if precision is not None and precision not in (*FLOATS, *QUANTISED):
        raise ValueError(f"precision={precision!r}: choose one of {', '.join((*FLOATS, *QUANTISED))}")
    if precision not in QUANTISED:
        return
    try:
        import bitsandbytes  # noqa: F401 its absence is what is looked for
    except ImportError as error:
        raise ValueError(
            f"precision={precision!r} needs bitsandbytes: pip install -r requirements/quantization.txt"
        ) from error


def _loaded_as(cfg: Config, dtype: str) -> Config:
    """The config with its language model loaded in a dtype."""
    cfg = deepcopy(cfg)
    for part in (cfg.model, cfg.model.get("module")):
        if isinstance(part, Mapping) and "language" in part:
            part["language"]["dtype"] = dtype
    return cfg


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Brings a model's weights to a dtype, one after the other.

    Buffers that are no part of a checkpoint stay: rotary frequencies rounded to bfloat16 would turn late tokens by
    wrong angles.
    """
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set and buffer.is_floating_point():
                setattr(module, name, buffer.to(dtype))


def _quantise(language: nn.Module, precision: str, device: str | torch.device) -> None:
    """Quantises the matrices of the language model's own layers, layer by layer, each on its way to the device."""
    # It says at each product that LLM.int8() computes outliers in float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    decoders = (layer for layer in language.modules() if isinstance(layer, GradientCheckpointingLayer))
    for decoder in [layer for layer in decoders if not isinstance(layer, GatedCrossAttentionBlock)]:
        for parent, name, linear in list(_matrices(decoder)):
            setattr(parent, name, _quantised(linear, precision))
        decoder.to(device)


def _matrices(layer: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """The nn.Linear modules of a layer, with the module and the name that each is found under; none of LoRA's own."""
    for path, parent in layer.named_modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and ".lora_" not in f".{path}":
                yield parent, name, child


def _quantised(linear: nn.Linear, precision: str) -> nn.Linear:
    """A bitsandbytes layer of the same weights, which it quantises when it is moved to a device."""
    from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit

    sizes = dict(input_features=linear.in_features, output_features=linear.out_features, bias=False, device="meta")
    # LLM.int8() quantises on the way from the CPU only.
    weight = linear.weight.data.cpu()
    if precision == "int8":
        layer = Linear8bitLt(**sizes, has_fp16_weights=False, threshold=6.0)
        layer.weight = Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        layer = Linear4bit(**sizes, compute_dtype=torch.bfloat16, quant_type="nf4")
        layer.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", module=layer)
    layer.bias = linear.bias
    return layer
