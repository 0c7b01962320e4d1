"""torch.compile: of single layers, for training steps, and in threads."""

import threading
from collections.abc import Callable
from functools import cache

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

RECOMPILE_LIMIT = 64


def compile_layers(model: nn.Module, options: dict | bool) -> None:
    """Compiles each decoder layer, gated block and resampler layer, to run compiled inside `compiled` functions only.

    The code between the layers depends on the numbers of images and tokens of a batch, and is not compiled. Elsewhere
    the layers run uncompiled: each decoding step has another length, which would be compiled again and again.

    Args:
        options: arguments of `torch.compile`; True for its defaults.
    """
    options = {} if options is True else options
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile(**options)
        # A loop over the samples of a batch cannot be a part of one graph for all batches.
        elif options.get("fullgraph") and isinstance(module, PreTrainedModel):
            if module.config._attn_implementation == "packed_eager":
                module.set_attn_implementation("eager")
    # A layer has several variants (with or without images, first or later, one row or several), each for a fixed and
    # for a dynamic shape. After 8 recompilations, torch's default, a layer would run uncompiled.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    torch.compiler.set_stance("force_eager")


def compiled(function: Callable) -> Callable:
    """A function during which the layers of `compile_layers` run compiled."""
    return torch.compiler.set_stance("default")(function)


@cache
def allow_compiling_in_threads() -> None:
    """Lets threads compile, one after the other, which crashes torch 2.11 otherwise.

    Where a torch that is built for CUDA finds no GPU, all threads use the device guard that the first one to trace has
    made, and it is freed at the end of that thread (https://github.com/pytorch/pytorch/pull/178950). Here a thread
    makes it that waits until the process ends. It has to be the first one that traces.
    """
    traced = threading.Event()

    def trace_and_wait() -> None:
        try:
            with FakeTensorMode():
                pass
        finally:
            traced.set()
        threading.Event().wait()

    threading.Thread(target=trace_and_wait, name="tracing", daemon=True).start()
    traced.wait()


def check_options(options: dict | bool | None) -> None:
    """Raises a ValueError unless `compile` of a config is a bool or a dict of arguments of `torch.compile`."""
    if options is None or isinstance(options, bool):
        return
    try:
        torch.compile(nn.Identity(), **options)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"compile={options!r} is neither a bool nor arguments of torch.compile: {error}") from error
