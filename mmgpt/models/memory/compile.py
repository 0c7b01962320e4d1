"""Layers as compiled graphs: torch.compile, in steps of training."""

from collections.abc import Callable

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

VARIANTS = 64


def compile_layers(model: nn.Module, options: dict | bool) -> None:
    """Compiles decoder layers, gated blocks and resampler one by one, to run so within `compiled` functions alone.

    What depends on the number of images and tokens of a batch lies between them. Elsewhere they run as they are: texts
    that grow have another length at each token, and would be compiled again and again.

    Args:
        options: of `torch.compile`; True: none.
    """
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile(**({} if options is True else options))
    # A layer has some variants (with images or without, first or later, one row or several), each for a fixed shape and
    # for any; beyond torch's own 8 it would not be compiled any more.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    torch.compiler.set_stance("force_eager")


def compiled(function: Callable) -> Callable:
    """The same function, within which compiled layers run compiled."""
    return torch.compiler.set_stance("default")(function)


def check_options(options: dict | bool | None) -> None:
    """Raises a ValueError when `compile` of a config is neither True or False nor options of `torch.compile`."""
    if options is None or isinstance(options, bool):
        return
    try:
        torch.compile(nn.Identity(), **options)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"compile={options!r} is neither True nor options of torch.compile: {error}") from error
