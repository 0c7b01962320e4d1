"""Paired comparison of two evaluations of the same samples, with the uncertainty of their difference."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from mmgpt.evaluation.results_reader import SavedEvaluation, is_right
from mmgpt.utils.errors import SampleLocation

BOOTSTRAP_SAMPLES = 2000
MAX_EXAMPLES = 3


class Pair(NamedTuple):
    """The rows of one sample in both evaluations, each with its `score`."""

    first: dict
    second: dict

    @property
    def gain(self) -> float:
        """Score of the second row minus that of the first."""
        return self.second["score"] - self.first["score"]


class Change(NamedTuple):
    """Statistics of pairs of rows, scores in percent.

    Attributes:
        low, high: 95 % confidence interval of the difference (paired bootstrap).
        wins, losses: numbers of pairs whose second score is higher, and lower.
        both_right, both_wrong: numbers of pairs of equal scores that count as correct, and as wrong.
        p: probability of at least this imbalance of wins and losses if both were equally likely (two-sided sign test;
            McNemar's exact test where scores are 0 and 1).
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


def pair_up(first: SavedEvaluation, second: SavedEvaluation) -> list[Pair]:
    """The samples of two evaluations as pairs, in the order of the first evaluation.

    Raises:
        ValueError: the evaluations differ in their scoring rules, samples or expected answers; names some samples.
    """
    if first.rule != second.rule:
        raise ValueError(f"{first.folder} is scored by rule {first.rule!r}, {second.folder} by {second.rule!r}")
    first_rows, second_rows = _rows_by_key(first.rows), _rows_by_key(second.rows)
    missing = [
        f"{len(rows)} are not in {evaluation.folder}, such as {'; '.join(map(_describe, rows[:MAX_EXAMPLES]))}"
        for evaluation, rows in (
            (second, [row for key, row in first_rows.items() if key not in second_rows]),
            (first, [row for key, row in second_rows.items() if key not in first_rows]),
        )
        if rows
    ]
    if missing:
        raise ValueError(f"only evaluations of the same samples can be compared: {', and '.join(missing)}")
    pairs = [Pair(row, second_rows[key]) for key, row in first_rows.items()]
    different = [pair for pair in pairs if _references(pair.first) != _references(pair.second)]
    if different:
        first_row, second_row = different[0]
        raise ValueError(
            f"{len(different)} samples have different expected answers: {_describe(first_row)}: "
            f"{_references(first_row)} and {_references(second_row)}"
        )
    return pairs


def change(pairs: Sequence[Pair]) -> Change:
    """The statistics of at least one pair."""
    scores = 100 * np.array([[pair.first["score"], pair.second["score"]] for pair in pairs])
    gains = [pair.gain for pair in pairs]
    wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    ties = Counter(is_right(pair.first["score"]) for pair in pairs if pair.gain == 0)
    p = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    first, second = scores.mean(axis=0)
    # How often a bootstrap sample holds each distinct gain is a multinomial draw. Scores have few distinct values, so
    # the cost hardly depends on the number of samples.
    values, counts = np.unique(scores[:, 1] - scores[:, 0], return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(pairs), counts / len(pairs), BOOTSTRAP_SAMPLES)
    low, high = map(float, np.percentile(draws @ values / len(pairs), [2.5, 97.5]))
    return Change(len(pairs), first, second, second - first, low, high, wins, losses, ties[True], ties[False], float(p))


def differing(first: Mapping, second: Mapping) -> dict[str, tuple]:
    """Differences between two nested dicts: dotted name -> both values, None for a missing one."""
    first_leaves, second_leaves = dict(_leaves(first, "")), dict(_leaves(second, ""))
    values = {name: (first_leaves.get(name), second_leaves.get(name)) for name in {**first_leaves, **second_leaves}}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def _rows_by_key(rows: Sequence[Mapping]) -> dict[tuple, dict]:
    """Rows by dataset, id and question, and by a running number among rows that are equal in all three."""
    repetitions: Counter = Counter()
    keyed = {}
    for row in rows:
        key = (row["dataset"], row["id"], row["question"])
        keyed[*key, repetitions[key]] = row
        repetitions[key] += 1
    return keyed


def _references(row: Mapping) -> list:
    return [row.get("answer"), row.get("answers")]


def _describe(row: Mapping) -> str:
    return f"{SampleLocation(row['dataset'], id=row['id'])} ({row['question']!r:.80})"


def _leaves(value, name: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, (Mapping, list)) and value:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
