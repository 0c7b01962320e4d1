"""Samples of random tokens and images, as long as the published data's, and the batches that training makes of them."""

from collections.abc import Sequence
from functools import partial
from math import exp, log
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from mmengine.dataset import DefaultSampler
from torch import Tensor

from mmgpt.datasets import JointBatchSampler, JointDataset, collate_conversations
from mmgpt.datasets.instruction import SOURCES
from mmgpt.datasets.transforms.tokens import IGNORE_INDEX
from mmgpt.models import flamingo_of


class Lengths(NamedTuple):
    """How long samples of a source are, in tokens, and the bounds of the share that their answers are of them.

    Lengths are log-normal within bounds; `spread` is the standard deviation of their logarithm.
    """

    shortest: int
    median: int
    longest: int
    spread: float
    answer: tuple[float, float]

    def quantiles(self, count: int, shrink: float) -> list[int]:
        """Lengths of so many samples, evenly spaced quantiles (few random ones would seldom have a long one)."""
        law = NormalDist(log(self.median), self.spread)
        drawn = [exp(law.inv_cdf((i + 0.5) / count)) for i in range(count)]
        return [max(int(min(max(length, self.shortest), self.longest) * shrink), 4) for length in drawn]


# A guess at the published mix, whose lengths nobody has published: prompts of its template, most visual answers of a
# few words, most language ones of some sentences, all cut at 512 tokens.
LENGTHS = {
    "visual": Lengths(60, 90, 250, 0.4, (0.1, 0.5)),
    "language": Lengths(60, 170, 512, 0.6, (0.3, 0.8)),
}
# Tokens before the image: those that open a prompt of the published template.
BEFORE_IMAGE = 24


class Words(NamedTuple):
    """What samples are made of: ids of ordinary tokens, that of `<image>`, and the side of an image in pixels."""

    ordinary: Tensor
    image: int
    side: int


def words_of(model: torch.nn.Module, side: int) -> Words:
    """Those of a model with a tokenizer, whose images are `side` pixels wide and high."""
    tokenizer = model.tokenizer
    ordinary = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    return Words(torch.tensor(ordinary), flamingo_of(model).language.image_token_id, side)


class DrawnSamples:
    """A part of a JointDataset: samples as PackInputs gives them, of one source.

    Args:
        source: 'visual' (one image each) or 'language'.
        count: number of samples.
        words: what they are made of.
        shrink: what all lengths are multiplied by.
        seed: of tokens, pixels, and which share of a sample is learned.
    """

    weight = 1.0

    def __init__(self, source: str, count: int, words: Words, shrink: float = 1.0, seed: int = 0):
        self.source = self.name = source
        rng = np.random.default_rng([seed, SOURCES.index(source)])
        self.samples = [self._draw(words, rng, length) for length in LENGTHS[source].quantiles(count, shrink)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, idx: int) -> dict:
        return self.samples[idx % len(self.samples)]

    def text_length(self, idx: int) -> int:
        """What JointBatchSampler sorts by."""
        return len(self[idx]["input_ids"])

    def _draw(self, words: Words, rng: np.random.Generator, length: int) -> dict:
        learned = max(round(length * rng.uniform(*LENGTHS[self.source].answer)), 1)
        ids = words.ordinary[torch.from_numpy(rng.integers(len(words.ordinary), size=length))]
        pixels = None
        if self.source == "visual":
            ids[min(BEFORE_IMAGE, length - learned - 1)] = words.image
            pixels = torch.from_numpy(rng.standard_normal((1, 3, words.side, words.side), np.float32))
        labels = torch.where(torch.arange(length) < length - learned, IGNORE_INDEX, ids)
        return dict(pixels=pixels, input_ids=ids, labels=labels, source=self.source, meta=dict(dataset=self.name))


def batches(
    parts: Sequence[DrawnSamples], size: int, grouped: bool = False, row_length: int | None = None
) -> list[dict]:
    """One epoch of training batches, each of `size` samples of each part.

    Args:
        parts: of different sources, equally long.
        size: divides their length.
        grouped: rows of like length share a batch.
        row_length: of rows that hold several samples; None: each sample is a row.
    """
    halves = {part.source: [part] for part in parts}
    joint = JointDataset(**halves)
    count = len(parts[0]) // size
    sampler = JointBatchSampler(DefaultSampler(joint, seed=0), size, size, sorted_batches=count if grouped else 1)
    collate = partial(collate_conversations, row_length=row_length)
    return [collate([joint[i] for i in indices]) for indices in sampler]
