"""Ids of predictions: each once, and all of them."""

from collections import Counter
from collections.abc import Hashable, Iterable

SHOWN = 5


def check_unique(given: Iterable[Hashable]) -> None:
    """Raises a ValueError that names ids which occur more than once."""
    repeated = [name for name, count in Counter(given).items() if count > 1]
    if repeated:
        raise ValueError(f"ids of several predictions: {_some(repeated)}")


def check_ids(expected: Iterable[Hashable], given: Iterable[Hashable]) -> None:
    """Checks that there is one prediction for each expected id.

    Raises:
        ValueError: ids are repeated, missing or unknown; it names some of them and says how many there are.
    """
    given = list(given)
    check_unique(given)
    expected, given = dict.fromkeys(expected), dict.fromkeys(given)  # ordered sets
    missing = [name for name in expected if name not in given]
    unknown = [name for name in given if name not in expected]
    faults = [f"{fault}: {_some(names)}" for fault, names in (("missing", missing), ("unknown", unknown)) if names]
    if faults:
        raise ValueError(f"{len(given)} predictions for {len(expected)} ids; {'; '.join(faults)}")


def _some(names: list) -> str:
    shown = ", ".join(map(repr, names[:SHOWN]))
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
