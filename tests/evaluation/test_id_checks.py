"""check_ids and check_unique name repeated, missing and unknown ids."""

import pytest

from mmgpt.evaluation.metrics.id_checks import check_ids, check_unique


def test_the_same_ids_in_any_order_pass():
    check_ids(["a", "b", "c"], ["c", "a", "b"])
    check_ids([], [])
    check_unique(iter(["a", "b"]))


@pytest.mark.parametrize(
    "actual, message",
    [
        ("ab", "2 predictions for 3 ids; missing: 'c'$"),
        ("abcd", "4 predictions for 3 ids; unknown: 'd'$"),
        ("abx", "3 predictions for 3 ids; missing: 'c'; unknown: 'x'$"),
        ("abcb", "ids of several predictions: 'b'$"),
        ("", "0 predictions for 3 ids; missing: 'a', 'b', 'c'$"),
    ],
)
def test_missing_unknown_and_repeated_ids_are_named(actual, message):
    with pytest.raises(ValueError, match=message):
        check_ids("abc", actual)


def test_at_most_five_ids_are_named():
    with pytest.raises(ValueError, match="missing: 0, 1, 2, 3, 4 and 95 more$"):
        check_ids(range(100), [])
    with pytest.raises(ValueError, match="several predictions: 0, 1, 2, 3, 4 and 5 more$"):
        check_unique([*range(10), *range(10)])
