"""Packing of several samples into one row of text."""

from collections.abc import Sequence
from typing import NamedTuple

# Rows have multiples of 8 tokens, since GPUs multiply in eights, and of about a 32nd part of the longest row, so that
# there are few lengths.
MULTIPLE, LENGTHS = 8, 32


class Rows(NamedTuple):
    """Rows of equal length, and the indices of the samples in each."""

    length: int
    samples: list[list[int]]

    @property
    def size(self) -> int:
        """Number of tokens in all rows, padding included."""
        return self.length * len(self.samples)


def pack_rows(lengths: Sequence[int], max_length: int) -> Rows:
    """Samples packed with the least padding: of all lengths that rows can have, the one with the smallest size.

    Among lengths with the same size the shortest is chosen, since its tokens attend to fewer others.

    Args:
        lengths: lengths of the samples in tokens, none above `max_length`.
        max_length: longest row.
    """
    step = max(max_length // (LENGTHS * MULTIPLE), 1) * MULTIPLE
    shortest = -(-max(lengths) // step) * step
    candidates = [*range(shortest, max_length, step), max_length]
    return min((Rows(length, fill_rows(lengths, length)) for length in candidates), key=lambda rows: rows.size)


def fill_rows(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Indices of the samples of each row by first fit: the longest first, each in the first row that is free enough.

    Args:
        lengths: lengths of the samples in tokens, none above `row_length`.
        row_length: length of a row.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for sample in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((row for row, tokens in enumerate(free) if tokens >= lengths[sample]), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(row_length)
        rows[row].append(sample)
        free[row] -= lengths[sample]
    return rows
