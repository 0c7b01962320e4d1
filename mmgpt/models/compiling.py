"""Layers as compiled graphs: torch.compile, in steps of training."""

from collections.abc import Callable

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


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
    torch.compiler.set_stance("force_eager")


def compiled(function: Callable) -> Callable:
    """The same function, within which compiled layers run compiled."""
    return torch.compiler.set_stance("default")(function)
