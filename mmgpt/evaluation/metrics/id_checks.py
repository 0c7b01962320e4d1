"""Checks that there is exactly one prediction for each id."""

from collections import Counter
from collections.abc import Hashable, Iterable

MAX_EXAMPLES = 5


def check_unique(ids: Iterable[Hashable]) -> None:
    """Check that no id is repeated.

    Raises:
        ValueError: ids are repeated; names some of them.
    """
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ValueError(f"ids of several predictions: {_examples(repeated)}")


def check_ids(expected: Iterable[Hashable], actual: Iterable[Hashable]) -> None:
    """Check that the actual ids are the expected ones, in any order, each once.

    Raises:
        ValueError: ids are repeated, missing or unknown; names some of them and their number.
    """
    actual = list(actual)
    check_unique(actual)
    # Dicts serve as ordered sets.
    expected, actual = dict.fromkeys(expected), dict.fromkeys(actual)
    missing = [name for name in expected if name not in actual]
    unknown = [name for name in actual if name not in expected]
    faults = [f"{fault}: {_examples(ids)}" for fault, ids in (("missing", missing), ("unknown", unknown)) if ids]
    if faults:
        raise ValueError(f"{len(actual)} predictions for {len(expected)} ids; {'; '.join(faults)}")


def _examples(ids: list) -> str:
    examples = ", ".join(map(repr, ids[:MAX_EXAMPLES]))
    return examples if len(ids) <= MAX_EXAMPLES else f"{examples} and {len(ids) - MAX_EXAMPLES} more"
