"""The dtype in which a machine computes a language model fast: measured on a CPU, bfloat16 elsewhere."""

import time
from functools import lru_cache

import torch
from mmengine.dist import broadcast_object_list
from mmengine.logging import print_log
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import PreTrainedConfig

from mmgpt.utils.precisions import AUTO

SEQUENCES, LENGTH, REPEATS = 4, 64, 4
# Larger layers are measured at this size, where the ratio is the same, so that the probe takes less than a second.
LARGEST_WIDTH = 2048
# Weights in bfloat16 are rounded, so that they have to gain something.
LEAST_GAIN = 1.1


def auto_dtype(config: PreTrainedConfig, device: str | torch.device | None = None) -> torch.dtype:
    """The dtype that 'auto' stands for: bfloat16 unless the device is a CPU that is faster in float32.

    Processes that train together get the answer of the first one.

    Args:
        config: of the language model, with the sizes to measure.
        device: of the model; None: the accelerator, where the machine has one.
    """
    if device is None and only_cpu():
        device = "cpu"
    if device is None or torch.device(device).type != "cpu":
        return torch.bfloat16
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", 8)
    width = min(text.hidden_size, LARGEST_WIDTH)
    inner = min(getattr(text, "intermediate_size", None) or 4 * width, 4 * LARGEST_WIDTH)
    measured = [layer_seconds(heads, max(width // heads, 1), inner)]
    broadcast_object_list(measured)
    (seconds,) = measured
    dtype = min(seconds, key=lambda name: seconds[name] * (LEAST_GAIN if name == "bfloat16" else 1))
    times = ", ".join(f"{1e3 * value:.1f} ms in {name}" for name, value in seconds.items())
    print_log(f"dtype {AUTO!r} is {dtype} here: a layer takes {times}", "current")
    return getattr(torch, dtype)


def only_cpu() -> bool:
    """Whether models compute on the CPU, as the machine has nothing else.

    On the meta device, the memory planner describes a machine with GPUs.
    """
    return torch.get_default_device().type == "cpu" and not torch.accelerator.is_available()


@lru_cache
def layer_seconds(heads: int, head_width: int, inner: int) -> dict[str, float]:
    """Seconds of the forward and backward pass of a layer with frozen weights on the CPU, by dtype."""
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    shapes = (SEQUENCES, LENGTH, heads * head_width), (inner, heads * head_width), (heads * head_width, inner)
    with torch.device("cpu"), torch.inference_mode(False), torch.enable_grad():
        for _ in range(REPEATS):
            for name, times in seconds.items():
                x, up, down = (torch.randn(shape, dtype=getattr(torch, name)) for shape in shapes)
                x.requires_grad_()
                start = time.perf_counter()
                _layer(x, up, down, heads).sum().backward()
                times.append(time.perf_counter() - start)
    return {name: min(times) for name, times in seconds.items()}


def _layer(x: Tensor, up: Tensor, down: Tensor, heads: int) -> Tensor:
    """Attention and feed-forward, (B, L, D) -> (B, L, D): attention is fused in float32 alone, as in the models."""
    q = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    if x.dtype == torch.float32:
        attended = scaled_dot_product_attention(q, q, q, is_causal=True)
    else:
        attended = (q @ q.mT).softmax(dim=-1) @ q
    return linear(linear(attended.transpose(1, 2).flatten(2), up), down)
