"""Two evaluations of the same samples side by side: what changed, and whether by more than chance."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from mmgpt.evaluation.written import Written, is_right
from mmgpt.utils.errors import SampleLocation

DRAWS = 2000
SHOWN = 3


class Pair(NamedTuple):
    """The rows of one sample in both evaluations, each with its `score`."""

    first: dict
    second: dict

    @property
    def gain(self) -> float:
        """What the second one scores more."""
        return self.second["score"] - self.first["score"]


class Change(NamedTuple):
    """Figures of some pairs, scores in percent.

    Attributes:
        low, high: of the difference, 95 % of paired bootstrap draws lie between them.
        p: of at least this imbalance of wins and losses if both were equally likely (two-sided sign test; of right and
            wrong answers it is McNemar's exact test).
    """

    questions: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    wins: int
    losses: int
    both_right: int
    both_wrong: int
    p: float


def pair_up(first: Written, second: Written) -> list[Pair]:
    """The samples of two evaluations as pairs, in the order of the first one.

    Raises:
        ValueError: they have other rules of scoring, other samples, or other expected answers; names some.
    """
    if first.rule != second.rule:
        raise ValueError(f"{first.folder} is scored by rule {first.rule!r}, {second.folder} by {second.rule!r}")
    one, other = _by_key(first.rows), _by_key(second.rows)
    lacking = [
        (second, [one[key] for key in one if key not in other]),
        (first, [other[key] for key in other if key not in one]),
    ]
    told = [
        f"{len(rows)} are not in {written.folder}, such as {'; '.join(map(_told, rows[:SHOWN]))}"
        for written, rows in lacking
        if rows
    ]
    if told:
        raise ValueError(f"only evaluations of the same samples can be compared: {', and '.join(told)}")
    pairs = [Pair(row, other[key]) for key, row in one.items()]
    wrong = [pair for pair in pairs if _answers(pair.first) != _answers(pair.second)]
    if wrong:
        both = f"{_answers(wrong[0].first)} and {_answers(wrong[0].second)}"
        raise ValueError(f"{len(wrong)} samples have other expected answers: {_told(wrong[0].first)}: {both}")
    return pairs


def change(pairs: Sequence[Pair]) -> Change:
    """The figures of at least one pair."""
    scores = 100 * np.array([[pair.first["score"], pair.second["score"]] for pair in pairs])
    gains = [pair.gain for pair in pairs]
    wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    same = Counter(is_right(pair.first["score"]) for pair in pairs if pair.gain == 0)
    p = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    first, second = scores.mean(axis=0)
    low, high = _interval(scores[:, 1] - scores[:, 0])
    return Change(len(pairs), first, second, second - first, low, high, wins, losses, same[True], same[False], float(p))


def differing(first: Mapping, second: Mapping) -> dict[str, tuple]:
    """What differs between two nested dicts: dotted name -> both values, None for one that is not there."""
    one, other = dict(_entries(first, "")), dict(_entries(second, ""))
    return {name: (one.get(name), other.get(name)) for name in {**one, **other} if one.get(name) != other.get(name)}


def _interval(gains: np.ndarray) -> tuple[float, float]:
    """Where 95 % of the means of samples drawn with replacement lie.

    Such a sample holds each distinct value so many times, which is a multinomial draw: its cost does not grow with the
    number of samples, as scores have few values.
    """
    (values, counts), draw = np.unique(gains, return_counts=True), np.random.default_rng(0)
    means = [draw.multinomial(len(gains), counts / len(gains)) @ values / len(gains) for _ in range(DRAWS)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _by_key(rows: Sequence[Mapping]) -> dict[tuple, dict]:
    """Rows by dataset, id and question; those that are alike in all three are told apart by their order."""
    seen: Counter = Counter()
    keyed = {}
    for row in rows:
        key = (row["dataset"], row["id"], row["question"])
        keyed[*key, seen[key]] = row
        seen[key] += 1
    return keyed


def _answers(row: Mapping) -> list:
    return [row.get("answer"), row.get("answers")]


def _told(row: Mapping) -> str:
    return f"{SampleLocation(row['dataset'], id=row['id'])} ({row['question']!r:.80})"


def _entries(value, place: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, (Mapping, list)) and value:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _entries(item, f"{place}.{key}" if place else str(key))
    else:
        yield place, value
