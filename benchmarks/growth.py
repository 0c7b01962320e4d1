"""Growth of the time of a training step with rows, length and images, compared with its bare components."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from scipy.optimize import nnls
from torch import nn

from mmgpt.models import flamingo_of
from mmgpt.models.memory.planner import Sizes, example

from .components import bare_language, forward_backward, image_encoder, resampler
from .rounds import Times
from .training import Row, own_step, text_of, transformers_step

Axes = Mapping[str, Sequence[int]]

AXES: Axes = {"rows": (1, 2, 4, 8), "length": (64, 128, 256, 512, 1024), "images": (0, 1, 2, 4, 8)}
# Sizes on the other axes, while one is varied.
DEFAULT_SIZES = Sizes(rows=1, length=128, images=1)
OURS, BARE = "ours", "bare parts"  # keys of the report
# Margin for noise in an exponent.
TOLERANCE = 0.1


class Law(NamedTuple):
    """Seconds as a function of a size n: constant + linear * n + quadratic * n^2, with coefficients of at least 0."""

    constant: float
    linear: float
    quadratic: float

    def __call__(self, n: float) -> float:
        return self.constant + self.linear * n + self.quadratic * n * n

    def exponent(self, n: float) -> float:
        """Exponent of the growth at a size: percent of time for one percent of size."""
        return (self.linear * n + 2 * self.quadratic * n * n) / self(n)


def fit(sizes: Sequence[float], seconds: Sequence[float]) -> Law:
    """The law with the least squared relative errors."""
    n, weight = np.asarray(sizes, float), 1 / np.asarray(seconds, float)
    scale = n.max()
    terms = np.stack([np.ones_like(n), n / scale, (n / scale) ** 2], axis=1)
    coefficients, _ = nnls(terms * weight[:, None], np.ones_like(n))
    return Law(*map(float, coefficients / [1, scale, scale**2]))


def rows(model: nn.Module, cfg: Config, axes: Axes = AXES, default: Sizes = DEFAULT_SIZES) -> dict[str, Row]:
    """A training step and its bare components for each size on each axis.

    The bare components are image encoder, resampler, and the language model with LoRA. All tokens but the first are
    supervised.

    Args:
        model: model of the config; it is left in training mode.
        cfg: the config.
        axes: field of Sizes -> its sizes.
        default: the sizes of the other fields.
    """
    model.train()
    bare = bare_language(model, cfg, lora="lora" in cfg).train()
    no_checkpointing = partial(flamingo_of(model).checkpoint, False)

    def bare_step(batch: dict) -> None:
        if "pixels" in batch:
            forward_backward(lambda: resampler(model, image_encoder(model, batch["pixels"].flatten(0, 1))))
        transformers_step(bare, text_of(batch))

    cases = {}
    for axis, sizes in axes.items():
        for n in sizes:
            batch = model.data_preprocessor(example(model, default._replace(**{axis: n})), training=True)
            supervised = batch["labels"][:, 1:].numel()
            for kind, step in ((OURS, partial(own_step, model)), (BARE, bare_step)):
                cases[name(axis, n, kind)] = Row(model, step, [batch], supervised, no_checkpointing)
    return cases


def name(axis: str, size: int, kind: str) -> str:
    """Name of a row; `kind` is OURS or BARE."""
    return f"{axis} {size}, {kind}"


def laws(times: Times, axes: Axes = AXES) -> dict[str, dict]:
    """For each axis its sizes, the median times and the laws of OURS and BARE, and whether ours grows no faster.

    Ours grows faster when its exponent at the largest size exceeds that of the bare components by more than TOLERANCE.
    """
    result = {}
    for axis, sizes in axes.items():
        seconds = {kind: [median(times[name(axis, n, kind)]) for n in sizes] for kind in (OURS, BARE)}
        fitted = {kind: fit(sizes, medians) for kind, medians in seconds.items()}
        exponents = {kind: law.exponent(sizes[-1]) for kind, law in fitted.items()}
        result[axis] = dict(
            sizes=list(sizes),
            seconds=seconds,
            laws={kind: law._asdict() for kind, law in fitted.items()},
            exponents=exponents,
            grows_no_faster=exponents[OURS] <= exponents[BARE] + TOLERANCE,
        )
    return result
