"""Which samples of a mix of weighted datasets each epoch has."""

from collections.abc import Sequence

import numpy as np

from .instruction import SOURCES, InstructionDataset

VISUAL, LANGUAGE, BATCHES, PASSES = 0, 1, 2, 3  # streams of random numbers; the first two in the order of SOURCES


class Mixture:
    """One half of a JointDataset as an endless row of epochs.

    A part is read pass after pass, and each epoch takes the next `weight * len(part)` samples (rounded), going on where
    the epoch before left it. With weight 2 an epoch has two passes; with 0.25 four epochs share one. A pass that lies
    in several epochs has an order of its own; whole passes need none, since the samples of an epoch are shuffled.
    All orders are pure functions of (seed, number of the epoch or pass).

    Args:
        parts: its datasets.
        stream: VISUAL or LANGUAGE.
        first: index of the first sample in the JointDataset.
        total: length of the JointDataset.
        seed: of the orders.
        shuffle: False leaves everything in the order of the parts.

    Attributes:
        counts: number of samples that an epoch has of each part.

    Raises:
        ValueError: the weight of a part is so small that no epoch has a sample of it.
    """

    def __init__(
        self, parts: Sequence[InstructionDataset], stream: int, first: int, total: int, seed: int, shuffle: bool
    ):
        self.parts, self.stream, self.first, self.total = parts, stream, first, total
        self.seed, self.shuffle = seed, shuffle
        self.counts = [round(part.weight * len(part)) for part in parts]
        for part, count in zip(parts, self.counts, strict=True):
            if not count:
                raise ValueError(
                    f"dataset {part.name!r}: weight={part.weight} of its {len(part)} samples is less than one an epoch"
                )

    def __len__(self) -> int:
        """Number of samples of one epoch."""
        return sum(self.counts)

    def epoch(self, number: int) -> np.ndarray:
        """The samples of an epoch in their order, each as `pass * total + index`, see InstructionDataset."""
        drawn, first = [np.empty(0, int)], self.first
        for place, (part, count) in enumerate(zip(self.parts, self.counts, strict=True)):
            drawn.append(first + self._draw(place, len(part), number * count, count))
            first += len(part)
        return np.concatenate(drawn)[self._order(len(self), self.stream, number)]

    def _draw(self, place: int, size: int, start: int, count: int) -> np.ndarray:
        """`count` samples, from position `start` on, of the endless passes over the part at `place`."""
        pieces = []
        for number in range(start // size, -(-(start + count) // size)):
            low, high = max(start - number * size, 0), min(start + count - number * size, size)
            whole = high - low == size
            order = np.arange(size) if whole else self._order(size, PASSES, self.stream, place, number)[low:high]
            pieces.append(number * self.total + order)
        return np.concatenate(pieces)

    def _order(self, size: int, *key: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(size)
        return np.random.default_rng([self.seed, *key]).permutation(size)


def mix_table(halves: Sequence[tuple[Mixture, int]]) -> str:
    """What an epoch of training has of each dataset, as lines of text.

    Args:
        halves: each with the number of samples that an epoch draws from it: of an endless half, as many as there are
            batches for.
    """
    rows = [("dataset", "source", "samples", "weight", "per epoch", "share")]
    total = sum(drawn for _, drawn in halves)
    for half, drawn in halves:
        for part, count in zip(half.parts, half.counts, strict=True):
            number = drawn * count / len(half)
            figures = (str(len(part)), f"{part.weight:g}", f"{number:.0f}", f"{number / total:.1%}")
            rows.append((part.name, SOURCES[half.stream], *figures))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join([*map(str.ljust, row[:2], widths), *map(str.rjust, row[2:], widths[2:])]) for row in rows)
    return "\n".join(["the mix of an epoch:", *lines])
