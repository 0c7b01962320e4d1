"""Samples that each epoch takes from a mixture of weighted datasets."""

from collections.abc import Sequence

import numpy as np

from .instruction import SOURCES, InstructionDataset
from .shards.streams import StreamedSamples

VISUAL, LANGUAGE, BATCHES, PASSES = 0, 1, 2, 3  # streams of random numbers; the first two in the order of SOURCES


class Mixture:
    """Endless sequence of epochs over the visual or the language datasets of a JointDataset.

    Each dataset is read pass after pass. An epoch takes the next `weight * len(dataset)` samples (rounded) and
    continues where the previous epoch stopped. With weight 2 an epoch has two passes; with 0.25 four epochs share one.
    A pass that is spread over several epochs has an order of its own; whole passes need none, because the samples of an
    epoch are shuffled. All orders are pure functions of (seed, number of the epoch or pass).

    Args:
        datasets: visual or language datasets of the JointDataset.
        stream: VISUAL or LANGUAGE.
        first: index of their first sample in the JointDataset.
        total: length of the JointDataset.
        seed: seed of the orders.
        shuffle: False keeps the order of the datasets.

    Attributes:
        counts: number of samples of each dataset in an epoch.

    Raises:
        ValueError: the weight of a dataset is so small that no epoch has a sample of it.
    """

    def __init__(
        self, datasets: Sequence[InstructionDataset], stream: int, first: int, total: int, seed: int, shuffle: bool
    ):
        self.datasets, self.stream, self.first, self.total = datasets, stream, first, total
        self.seed, self.shuffle = seed, shuffle
        self.counts = [round(dataset.weight * len(dataset)) for dataset in datasets]
        for dataset, count in zip(datasets, self.counts, strict=True):
            if not count:
                size = f"weight={dataset.weight} of its {len(dataset)} samples"
                raise ValueError(f"dataset {dataset.name!r}: {size} is less than one an epoch")

    def __len__(self) -> int:
        """Number of samples of one epoch."""
        return sum(self.counts)

    def epoch(self, number: int) -> np.ndarray:
        """Samples of an epoch in their order, each as `pass * total + index`, see InstructionDataset."""
        samples = np.concatenate([np.empty(0, int), *self._samples(number)])
        return samples[self._order(len(self), self.stream, number)]

    def reading_order(self, number: int) -> np.ndarray:
        """Same as `epoch`, in an order in which the samples of each streamed dataset stay in that of a pass over it."""
        datasets = np.repeat(np.arange(len(self.counts)), self.counts)[self._order(len(self), self.stream, number)]
        samples = np.empty(len(self), int)
        for position, part in enumerate(self._samples(number)):
            if streamed_samples(self.datasets[position]) is None:
                part = part[self._order(len(part), self.stream, number, position)]
            samples[datasets == position] = part
        return samples

    def _samples(self, number: int) -> list[np.ndarray]:
        """Samples of an epoch from each dataset; a pass that several epochs share, or over a stream, has an order."""
        parts, first = [], self.first
        for position, (dataset, count) in enumerate(zip(self.datasets, self.counts, strict=True)):
            # The epoch takes the samples from `start` to `end` of the endless passes over the dataset.
            size, start, end = len(dataset), number * count, (number + 1) * count
            streamed, samples = streamed_samples(dataset), [np.empty(0, int)]
            for pass_number in range(start // size, -(-end // size)):
                low, high = max(start - pass_number * size, 0), min(end - pass_number * size, size)
                key = PASSES, self.stream, position, pass_number
                if streamed and self.shuffle:
                    order = streamed.order(np.random.default_rng([self.seed, *key]))[low:high]
                elif high - low == size:
                    order = np.arange(size)
                else:
                    order = self._order(size, *key)[low:high]
                samples.append(first + pass_number * self.total + order)
            parts.append(np.concatenate(samples))
            first += size
        return parts

    def _order(self, size: int, *key: int) -> np.ndarray:
        """Random order of `size` items as a function of (seed, key), or their own order without shuffling."""
        if not self.shuffle:
            return np.arange(size)
        return np.random.default_rng([self.seed, *key]).permutation(size)


def streamed_samples(dataset) -> StreamedSamples | None:
    """Samples of a dataset that is read as a stream; None for any other."""
    samples = getattr(dataset, "data_list", None)
    return samples if isinstance(samples, StreamedSamples) else None


def mixture_table(mixtures: Sequence[tuple[Mixture, int]]) -> str:
    """Table of the samples that an epoch of training takes from each dataset, as lines of text.

    Args:
        mixtures: each with the number of samples that an epoch draws from it.
    """
    rows = [("dataset", "source", "samples", "weight", "per epoch", "share")]
    total = sum(drawn for _, drawn in mixtures)
    for mixture, drawn in mixtures:
        for dataset, count in zip(mixture.datasets, mixture.counts, strict=True):
            number = drawn * count / len(mixture)
            figures = (str(len(dataset)), f"{dataset.weight:g}", f"{number:.0f}", f"{number / total:.1%}")
            rows.append((dataset.name, SOURCES[mixture.stream], *figures))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join([*map(str.ljust, row[:2], widths), *map(str.rjust, row[2:], widths[2:])]) for row in rows)
    return "\n".join(["the mix of an epoch:", *lines])
