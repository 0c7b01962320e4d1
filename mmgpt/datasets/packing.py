"""Several samples in one row of text."""

from collections.abc import Sequence


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
