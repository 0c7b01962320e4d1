"""How the time of a step of training grows with rows, length and images, beside that of its bare parts."""

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

from .parts import bare_language, learn, resampler, tower
from .rounds import Times
from .training import Row, learn_text, own_step, text_of

Axes = Mapping[str, Sequence[int]]

AXES: Axes = {"rows": (1, 2, 4, 8), "length": (64, 128, 256, 512, 1024), "images": (0, 1, 2, 4, 8)}
# What does not grow.
USUAL = Sizes(rows=1, length=128, images=1)
OURS, BARE = "ours", "bare parts"
# What noise may add to an exponent.
TOLERANCE = 0.1


class Law(NamedTuple):
    """Seconds for a size n: constant + linear * n + quadratic * n^2, none of them negative."""

    constant: float
    linear: float
    quadratic: float

    def __call__(self, n: float) -> float:
        return self.constant + self.linear * n + self.quadratic * n * n

    def exponent(self, n: float) -> float:
        """The power with which time grows at a size: by how many percent for one percent more."""
        return (self.linear * n + 2 * self.quadratic * n * n) / self(n)


def fit(sizes: Sequence[float], seconds: Sequence[float]) -> Law:
    """The law with the least squares of relative errors."""
    n, weight = np.asarray(sizes, float), 1 / np.asarray(seconds, float)
    scale = n.max()
    terms = np.stack([np.ones_like(n), n / scale, (n / scale) ** 2], axis=1)
    found, _ = nnls(terms * weight[:, None], np.ones_like(n))
    return Law(*map(float, found / [1, scale, scale**2]))


def rows(model: nn.Module, cfg: Config, axes: Axes = AXES, usual: Sizes = USUAL) -> dict[str, Row]:
    """A step of ours and of its bare parts for each size on each axis.

    The bare parts are tower, resampler, and the language model with LoRA; all tokens but the first are learned.

    Args:
        model: of the config; it is left in training mode.
        cfg: the config.
        axes: sizes of each field of Sizes that grows.
        usual: the sizes of what does not grow meanwhile.
    """
    model.train()
    bare = bare_language(model, cfg, lora="lora" in cfg).train()
    keep = partial(flamingo_of(model).checkpoint, False)
    found = {}
    for axis, sizes in axes.items():
        for n in sizes:
            batch = model.data_preprocessor(example(model, usual._replace(**{axis: n})), training=True)
            learned = batch["labels"][:, 1:].numel()
            found[name(axis, n, OURS)] = Row(model, partial(own_step, model), [batch], learned, keep)
            found[name(axis, n, BARE)] = Row(model, partial(_bare_step, model, bare), [batch], learned, keep)
    return found


def name(axis: str, size: int, of: str) -> str:
    """The name of a row."""
    return f"{axis} {size}, {of}"


def laws(times: Times, axes: Axes = AXES) -> dict[str, dict]:
    """For each axis its sizes, the medians and laws of OURS and BARE, and whether ours grows no faster.

    It does when its exponent at the largest size is above that of the bare parts by more than TOLERANCE.
    """
    found = {}
    for axis, sizes in axes.items():
        seconds = {of: [median(times[name(axis, n, of)]) for n in sizes] for of in (OURS, BARE)}
        fitted = {of: fit(sizes, some) for of, some in seconds.items()}
        exponents = {of: law.exponent(sizes[-1]) for of, law in fitted.items()}
        found[axis] = dict(
            sizes=list(sizes),
            seconds=seconds,
            laws={of: law._asdict() for of, law in fitted.items()},
            exponents=exponents,
            grows_no_faster=exponents[OURS] <= exponents[BARE] + TOLERANCE,
        )
    return found


def _bare_step(model: nn.Module, bare: nn.Module, batch: dict) -> None:
    if "pixels" in batch:
        learn(lambda: resampler(model, tower(model, batch["pixels"].flatten(0, 1))))
    learn_text(bare, text_of(batch))
