"""Several samples in one row of text."""

from collections.abc import Sequence
from typing import NamedTuple

STEP = 64  # tokens; lengths of rows are multiples of it


class Rows(NamedTuple):
    """Rows of equal length, and the numbers of the samples in each."""

    length: int
    samples: list[list[int]]

    @property
    def places(self) -> int:
        """Tokens of all rows, padding included."""
        return self.length * len(self.samples)


def pack_rows(lengths: Sequence[int], most: int) -> Rows:
    """Samples in rows with the least padding: of all lengths that rows can have, the one with the fewest places.

    Where several have as few, the shortest: its tokens attend to fewer others.

    Args:
        lengths: of the samples, in tokens.
        most: length of a row at most; no sample is longer.
    """
    shortest = -(-max(lengths) // STEP) * STEP
    tried = [*range(shortest, most, STEP), most]
    return min((Rows(length, fill_rows(lengths, length)) for length in tried), key=lambda rows: rows.places)


def fill_rows(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Numbers of the samples of each row, long ones first, each in the first row with room for it (first fit).

    Args:
        lengths: of the samples, in tokens.
        room: length of a row; no sample is longer.
    """
    rows: list[list[int]] = []
    left: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((row for row, free in enumerate(left) if free >= lengths[number]), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(room)
        rows[row].append(number)
        left[row] -= lengths[number]
    return rows
