"""The models that the parts measure, and their inputs."""

import gc
from collections.abc import Callable
from functools import cache
from statistics import median

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn

from benchmarks.limits import Limits, limits
from benchmarks.rounds import Timer
from benchmarks.samples import words_of
from mmgpt.apis import build_model
from mmgpt.cli import load_config
from mmgpt.models.loss import IGNORE_INDEX

from .parts import Setting

LARGE, SMALL, TINY = (f"configs/mmgpt/benchmark{name}.py" for name in ("_9b", "", "_tiny"))


def free_memory() -> None:
    """Free what an earlier part has left: models, compiled graphs, and the process group."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    torch._dynamo.reset()
    torch.compiler.set_stance("default")
    gc.collect()
    torch.cuda.empty_cache()


def config(setting: Setting, path: str = LARGE, options: dict | None = None) -> Config:
    """One of the configs, or in its place the tiny one, with options as of --cfg-options."""
    init_default_scope("mmgpt")
    MMLogger.get_current_instance().setLevel("WARNING")
    return load_config(TINY if setting.tiny else path, options)


def build(setting: Setting, cfg: Config) -> nn.Module:
    """The model of a config in evaluation mode, with random weights that are drawn on its device."""
    # A CPU draws the random numbers of seven billion weights for a minute.
    with torch.device(setting.device):
        return build_model(cfg, device=setting.device)


def packed_batch(model: nn.Module, rows: int, length: int, samples: int, side: int, seed: int = 0) -> dict:
    """A training batch of random tokens and images, on the model's device: rows of `samples` equally long samples.

    Each sample begins with an image, and the second half of its tokens is supervised.

    Args:
        rows, length: B and L; all samples together are as long as a row.
        side: of the images, in pixels.
    """
    words, generator = words_of(model, side), torch.Generator().manual_seed(seed)
    ids = words.ordinary[torch.randint(len(words.ordinary), (rows, length), generator=generator)]
    columns, size = torch.arange(length).expand(rows, -1), length // samples
    ids[:, ::size] = words.image
    batch = dict(
        input_ids=ids,
        labels=torch.where(columns % size < size // 2, IGNORE_INDEX, ids),
        attention_mask=torch.ones_like(ids),
        sample_ids=columns // size + samples * torch.arange(rows)[:, None],
        pixels=torch.randn(rows, samples, 3, side, side, generator=generator),
        image_counts=torch.full((rows,), samples),
        sources=["visual"] * (rows * samples),
    )
    return model.data_preprocessor(batch, training=True)


def seconds_of(setting: Setting, work: Callable[[], object], rounds: int) -> float:
    """The median of the seconds that `work` takes, after it has run once."""
    timer = Timer(torch.device(setting.device))
    return median([timer(work) for _ in range(rounds + 1)][1:])


@cache
def measured_limits(setting: Setting) -> Limits:
    """The device's limits, in bfloat16 on a GPU."""
    return limits(torch.device(setting.device), torch.float32 if setting.device == "cpu" else torch.bfloat16)
