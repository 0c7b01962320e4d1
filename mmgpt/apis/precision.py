"""Preparing a tuned model for inference: LoRA merged into the weights, the weights cast or quantized."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn
from transformers import PreTrainedConfig

from mmgpt.apis.build import build_model, find_device
from mmgpt.cli.config import flamingo_config
from mmgpt.models import LoRAModel, flamingo_of
from mmgpt.models.adapters import load_adapters
from mmgpt.models.language import language_config
from mmgpt.models.memory.cpu_linear import pack_linear_layers
from mmgpt.models.memory.probe import auto_dtype
from mmgpt.models.memory.quantization import check_quantized, is_quantized, quantize, quantize_for_cpu
from mmgpt.utils.precisions import AUTO, FLOATS, PRECISIONS, QUANTIZED


def build_for_serving(
    cfg: Config,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    merge: bool = True,
    adapters: Mapping[str, str | Path] | None = None,
) -> nn.Module:
    """The model of a config, ready for inference: `build_model` and `for_serving` in one, with less memory.

    No copy of the language model in another precision is made on the way. For 'int8' and 'int4' the model is built on
    the CPU, so that the GPU never holds more than the quantized weights, the components that stay bfloat16, and one
    layer.

    Args:
        cfg, checkpoint, device: as for `build_model`.
        precision, merge: as for `for_serving`.
        adapters: as for `load_adapters`; the model is then peft's wrapper, and has no other LoRA updates.

    Raises:
        FileNotFoundError, ValueError: see these functions. Precision and device are checked before the model is built.
    """
    device = str(find_device(device))
    check_precision(precision, device)
    if precision == AUTO:
        language = flamingo_config(cfg)["language"]
        precision = _fast_precision(language_config(language["path"], language.get("config")), device)
    dtype = "bfloat16" if precision in QUANTIZED else precision
    model = build_model(unquantized(cfg, dtype), checkpoint, "cpu" if precision in QUANTIZED else device)
    if adapters:
        model = load_adapters(model, cfg, adapters)
    return for_serving(model, precision, merge, device)


def for_serving(
    model: nn.Module, precision: str | None = None, merge: bool = True, device: str | None = None
) -> nn.Module:
    """The loaded model, prepared for fast inference in place; it cannot be trained or saved afterwards.

    Args:
        model: a Flamingo, or a LoRAModel or peft's wrapper around one.
        precision: 'float32' or 'bfloat16' for every weight; 'auto' for that of both which the device computes fast (see
            `auto_dtype`); 'int8' or 'int4' (bitsandbytes' LLM.int8(), and NF4 with
            double quantization) for the matrices of the language model's layers, and bfloat16 for all other weights:
            the embedding and the head, whose errors no residual stream dampens, and the gated blocks and image
            components, which hold the tuned weights. On a CPU, 'int8' means `Int8Linear`, also for the head, whose
            weights are a fifth of a small model's. None leaves the weights as they are.
        merge: whether LoRA updates are added to the weights, in the weights' dtype, before these are quantized. Updates
            with a bias (lora_bias=True) of layers without one stay beside the weights, and so do adapters by name.
        device: where the model is moved to; None leaves it where it is.

    Raises:
        ValueError: the precision is unknown, or needs bitsandbytes, which is not installed; or the model is quantized
            already.
    """
    device = torch.device(next(model.parameters()).device if device is None else device)
    check_precision(precision, device)
    if precision == AUTO:
        precision = _fast_precision(flamingo_of(model).language.config, device)
    if is_quantized(model):
        raise ValueError("the language model is quantized already: build it with language.precision=None")
    if merge and isinstance(model, LoRAModel) and not model.unmergeable_layers():
        model = model.peft.merge_and_unload()
    if precision is not None:
        dtype = getattr(torch, precision if precision in FLOATS else "bfloat16")
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(dtype)
            # Non-persistent buffers keep their dtype: rotary frequencies rounded to bfloat16 would turn late tokens by
            # wrong angles.
            for name, buffer in module.named_buffers(recurse=False):
                if name not in module._non_persistent_buffers_set and buffer.is_floating_point():
                    setattr(module, name, buffer.to(dtype))
    language = flamingo_of(model).language
    if precision in QUANTIZED and not _has_own_int8(precision, device):
        quantize(language.model, precision, device)
    model = model.to(device).eval()
    if _has_own_int8(precision, device):
        quantize_for_cpu(language.model)
    use_column_major(language)
    pack_linear_layers(language)
    return model


def check_precision(precision: str | None, device: str | torch.device) -> None:
    """Raises a ValueError for an unknown precision, or one that needs a library that is not installed."""
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if precision in QUANTIZED and not _has_own_int8(precision, device):
        check_quantized(precision)


def _fast_precision(config: PreTrainedConfig, device: str | torch.device) -> str:
    """The precision that 'auto' stands for on a device, for a language model with this config."""
    return str(auto_dtype(config, device)).removeprefix("torch.")


def _has_own_int8(precision: str | None, device: str | torch.device) -> bool:
    """Whether the layers of a precision on a device are `Int8Linear`, which need no bitsandbytes."""
    return precision == "int8" and torch.device(device).type == "cpu"


def unquantized(cfg: Config, dtype: str | None = None) -> Config:
    """Copy of a config that loads the language model without quantization, and in `dtype` if that is given."""
    cfg = deepcopy(cfg)
    for component in (cfg.model, cfg.model.get("module")):
        if isinstance(component, Mapping) and "language" in component:
            component["language"].pop("precision", None)
            component["language"].update({} if dtype is None else {"dtype": dtype})
    return cfg


def use_column_major(language: nn.Module) -> None:
    """Change of wide layers to column-major memory layout on the CPU, in place; it makes decoding faster.

    The values stay. A product with one to three rows (the token of a sequence, or of its beams) then takes half to two
    thirds of the time for layers that widen a vector, and a tenth less for square ones; others do not get faster (MKL
    2024 in float32, on an AMD EPYC). Products with many rows take the same time.
    """
    embeddings = {id(module.weight) for module in language.modules() if isinstance(module, nn.Embedding)}
    for module in language.modules():
        if not isinstance(module, nn.Linear) or id(module.weight) in embeddings:
            continue
        weight = module.weight
        if weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.shape[0] >= weight.shape[1]:
            weight.data = weight.data.t().contiguous().t()
