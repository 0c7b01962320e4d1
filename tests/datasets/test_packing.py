"""How samples are put together in rows."""

import pytest

from mmgpt.datasets.packing import fill_rows, pack_rows

LENGTHS = [1 + (7 * i) % 50 for i in range(200)]


def test_rows_are_filled_by_first_fit():
    assert fill_rows([3, 5, 2, 6, 1], 6) == [[3], [1, 4], [0, 2]]
    lengths = [1 + (7 * i) % 50 for i in range(200)]
    rows = fill_rows(lengths, 64)
    assert sorted(number for row in rows for number in row) == list(range(200))
    assert all(sum(lengths[i] for i in row) <= 64 for row in rows)
    assert sum(lengths) / (64 * len(rows)) > 0.95


@pytest.mark.parametrize(
    "lengths, most, length, samples",
    [
        ([60, 60, 60], 512, 64, [[0], [1], [2]]),  # three rows of 64, or one of 192: the shorter ones
        ([100, 100, 100, 20], 512, 320, [[0, 1, 2, 3]]),  # not two rows of 256
        ([30, 40], 50, 40, [[1], [0]]),
        ([30, 30], 400, 32, [[0], [1]]),  # a multiple of 8
        ([500, 40, 30], 2048, 576, [[0, 1, 2]]),  # a multiple of 64
        ([500, 10], 512, 512, [[0, 1]]),
    ],
)
def test_rows_have_the_length_with_the_smallest_size(lengths, most, length, samples):
    assert pack_rows(lengths, most) == (length, samples)


def test_no_other_row_length_has_a_smaller_size():
    rows = pack_rows(LENGTHS, 512)
    assert rows.size == min(length * len(fill_rows(LENGTHS, length)) for length in range(64, 513, 16))
    assert rows.size < 1.02 * sum(LENGTHS)
