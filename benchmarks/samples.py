"""Samples of random tokens and images, as long as those of the published data, and training batches of them."""

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
from mmgpt.models import flamingo_of
from mmgpt.models.loss import IGNORE_INDEX


class Lengths(NamedTuple):
    """Distribution of the lengths in tokens of a source's samples.

    Lengths are log-normal within bounds. `spread` is the standard deviation of their logarithm, `answer` the bounds of
    the share of the answers.
    """

    shortest: int
    median: int
    longest: int
    spread: float
    answer: tuple[float, float]

    def quantiles(self, count: int, shrink: float) -> list[int]:
        """Lengths of `count` samples: evenly spaced quantiles, since few random lengths seldom include a long one."""
        distribution = NormalDist(log(self.median), self.spread)
        lengths = [exp(distribution.inv_cdf((i + 0.5) / count)) for i in range(count)]
        return [max(int(min(max(length, self.shortest), self.longest) * shrink), 4) for length in lengths]


# The lengths of the published mixture are unknown. This is an estimate: prompts of its template, visual answers mostly
# of a few words and language answers of some sentences, all cut at 512 tokens.
LENGTHS = {
    "visual": Lengths(60, 90, 250, 0.4, (0.1, 0.5)),
    "language": Lengths(60, 170, 512, 0.6, (0.3, 0.8)),
}
# Number of tokens with which the published template begins, before the image.
BEFORE_IMAGE = 24


class Words(NamedTuple):
    """Vocabulary of the samples: ids of ordinary tokens, the id of `<image>`, and the side of an image in pixels."""

    ordinary: Tensor
    image: int
    side: int


def words_of(model: torch.nn.Module, side: int) -> Words:
    """The vocabulary of a model's tokenizer, for images of `side` x `side` pixels."""
    tokenizer = model.tokenizer
    ordinary = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    return Words(torch.tensor(ordinary), flamingo_of(model).language.image_token_id, side)


class DrawnSamples:
    """Dataset of one source for a JointDataset, with samples as PackInputs returns them.

    Args:
        source: 'visual' (samples with one image) or 'language'.
        count: number of samples.
        words: vocabulary of the samples.
        shrink: factor of all lengths.
        seed: seed of the tokens, the pixels, and the share of each answer.
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
        """Length of a sample in tokens, by which JointBatchSampler sorts."""
        return len(self[idx]["input_ids"])

    def _draw(self, words: Words, rng: np.random.Generator, length: int) -> dict:
        supervised = max(round(length * rng.uniform(*LENGTHS[self.source].answer)), 1)
        ids = words.ordinary[torch.from_numpy(rng.integers(len(words.ordinary), size=length))]
        pixels = None
        if self.source == "visual":
            ids[min(BEFORE_IMAGE, length - supervised - 1)] = words.image
            pixels = torch.from_numpy(rng.standard_normal((1, 3, words.side, words.side), np.float32))
        labels = torch.where(torch.arange(length) < length - supervised, IGNORE_INDEX, ids)
        return dict(pixels=pixels, input_ids=ids, labels=labels, source=self.source, meta=dict(dataset=self.name))


def batches(
    datasets: Sequence[DrawnSamples], size: int, grouped: bool = False, row_length: int | None = None
) -> list[dict]:
    """One epoch of training batches, each with `size` samples of each dataset.

    Args:
        datasets: datasets of different sources and equal lengths.
        size: number that divides their length.
        grouped: whether rows of similar lengths share a batch.
        row_length: length of packed rows; None for one sample per row.
    """
    joint = JointDataset(**{dataset.source: [dataset] for dataset in datasets})
    count = len(datasets[0]) // size
    sampler = JointBatchSampler(DefaultSampler(joint, seed=0), size, size, sorted_batches=count if grouped else 1)
    collate = partial(collate_conversations, row_length=row_length)
    return [collate([joint[i] for i in indices]) for indices in sampler]
