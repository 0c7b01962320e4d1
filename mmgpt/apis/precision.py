"""A tuned model made ready to answer: LoRA merged into the weights, which are of the wanted precision."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from mmgpt.apis.build import build_model, find_device
from mmgpt.models import LoRAModel, flamingo_of
from mmgpt.models.memory.quantization import check_quantized, is_quantized, quantize
from mmgpt.utils.precisions import FLOATS, QUANTIZED


def build_for_serving(
    cfg: Config,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    merge: bool = True,
) -> nn.Module:
    """`build_model`, then `for_serving`, without a copy of the language model in another precision on the way.

    For 'int8' and 'int4' the model is built on the CPU, so that the GPU never holds more than the quantized weights,
    the parts that stay bfloat16, and one layer.

    Args:
        cfg, checkpoint, device: as for `build_model`.
        precision, merge: as for `for_serving`.

    Raises:
        FileNotFoundError, ValueError: as these two say; of a wrong precision or device before anything is built.
    """
    check_precision(precision)
    device = str(find_device(device))
    dtype = None if precision is None else precision if precision in FLOATS else "bfloat16"
    model = build_model(unquantized(cfg, dtype), checkpoint, "cpu" if precision in QUANTIZED else device)
    return for_serving(model, precision, merge, device)


def for_serving(
    model: nn.Module, precision: str | None = None, merge: bool = True, device: str | None = None
) -> nn.Module:
    """A built and loaded model as it answers fastest; it is changed in place, and cannot be trained or saved any more.

    Args:
        model: a Flamingo, or a LoRAModel around one. What has no LoRA has nothing to merge.
        precision: 'float32' or 'bfloat16' for every weight; 'int8' or 'int4' (bitsandbytes' LLM.int8(), and NF4 with
            double quantization) for the matrices in the language model's own layers, and bfloat16 for the rest: the
            embedding and the head, which every token goes through unprotected by a residual stream, the gated blocks
            and the image parts, which hold what was tuned. None leaves the weights as they are.
        merge: whether LoRA updates are added to the weights, in the weights' dtype, before they are quantized. Updates
            with a bias (lora_bias=True) of layers without one stay beside the weights.
        device: where the model answers; None is where it is.

    Raises:
        ValueError: the precision is unknown, or needs bitsandbytes, which is not installed; the model is quantized.
    """
    check_precision(precision)
    if is_quantized(model):
        raise ValueError("the language model is quantized already: build it with language.precision=None")
    device = next(model.parameters()).device if device is None else device
    if merge and isinstance(model, LoRAModel) and not model.unmergeable_layers():
        model = model.peft.merge_and_unload()
    if precision is not None:
        _cast(model, getattr(torch, precision if precision in FLOATS else "bfloat16"))
    if precision in QUANTIZED:
        quantize(flamingo_of(model).language.model, precision, device)
    model = model.to(device).eval()
    lay_out(flamingo_of(model).language)
    return model


def check_precision(precision: str | None) -> None:
    """Raises a ValueError when there is no such precision, or when what it needs is not installed."""
    if precision is not None and precision not in (*FLOATS, *QUANTIZED):
        raise ValueError(f"precision={precision!r}: choose one of {', '.join((*FLOATS, *QUANTIZED))}")
    if precision in QUANTIZED:
        check_quantized(precision)


def unquantized(cfg: Config, dtype: str | None = None) -> Config:
    """The config without the quantization that its language model is trained with, or loaded in another dtype too."""
    cfg = deepcopy(cfg)
    for part in (cfg.model, cfg.model.get("module")):
        if isinstance(part, Mapping) and "language" in part:
            part["language"].pop("precision", None)
            part["language"].update({} if dtype is None else {"dtype": dtype})
    return cfg


def lay_out(language: nn.Module) -> None:
    """Lays the weights of wide layers out by columns where the CPU multiplies few rows by them, in place.

    The values stay. A product of one to three rows (a token of a text, or of its beams) then takes half to two thirds
    of the time for layers that make a vector wider, a tenth less for square ones, and others are not faster by it
    (MKL 2024 in float32, on an AMD EPYC); products of many rows take the same time.
    """
    tables = {id(module.weight) for module in language.modules() if isinstance(module, nn.Embedding)}
    for module in language.modules():
        if not isinstance(module, nn.Linear) or id(module.weight) in tables:
            continue
        weight = module.weight
        if weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.shape[0] >= weight.shape[1]:
            weight.data = weight.data.t().contiguous().t()


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
