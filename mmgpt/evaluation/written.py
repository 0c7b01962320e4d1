"""Evaluations as EvaluationLoop wrote them, read again: rows, scores, kinds of questions."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmgpt.evaluation.metrics.benchmark import RULES
from mmgpt.evaluation.predictions import Predictions
from mmgpt.evaluation.results import RESULT
from mmgpt.utils.json_file import read_json_object

TOGETHER = ("caption",)  # rules that score many samples, not single ones
TYPES, SHARE = 20, 0.01
REST = "(other questions)"
WORD = re.compile(r"[^\W_]+")


class Written(NamedTuple):
    """An evaluation: its folder, what result.json holds, the rule of its scores, and its rows, each with a `score`."""

    folder: Path
    result: dict
    rule: str
    rows: list[dict]


def read_evaluation(path: str | Path) -> Written:
    """An evaluation by its folder, or by the result.json in it.

    A row's score, 0 to 1, is its own `score` if it has one, else what the rule of the evaluation's benchmark gives it,
    else whether it equals a reference. Rows that the rule does not count are left out.

    Raises:
        FileNotFoundError: there is none; names those below the path.
        ValueError: its predictions are incomplete, or a sample has no answer to compare with.
    """
    folder = Path(path).parent if Path(path).name == RESULT else Path(path)
    if not (folder / RESULT).is_file():
        below = " or ".join(sorted(str(found.parent) for found in folder.glob(f"**/{RESULT}")))
        raise FileNotFoundError(f"{folder} holds no {RESULT}" + (f"; did you mean {below}?" if below else ""))
    result = read_json_object(folder / RESULT)
    rows = Predictions(folder).read()
    if len(rows) != result["samples"]:
        raise ValueError(f"{folder}: {len(rows)} predictions, but {RESULT} is of {result['samples']} samples")
    rule = rule_of(result["settings"]["metrics"])
    scored = [_scored(row, rule) for _, row in sorted(rows.items())]
    return Written(folder, result, rule, [row for row in scored if row is not None])


def rule_of(metrics: Mapping | Sequence[Mapping]) -> str:
    """The first rule among an evaluation's metrics that scores single samples; 'exact' without one.

    Raises:
        ValueError: only the likelihood of right answers was measured.
    """
    metrics = [metrics] if isinstance(metrics, Mapping) else metrics
    if all(metric.get("type") == "Perplexity" for metric in metrics):
        raise ValueError("an evaluation of perplexity has no answers to look at")
    rules = [metric.get("rule") for metric in metrics]
    return next((rule for rule in rules if rule in RULES and rule not in TOGETHER), "exact")


def is_right(score: float) -> bool:
    """Whether a score counts as right where there is only right and wrong."""
    return score >= 0.5


def truth(row: Mapping) -> str:
    """What was expected: one answer, or those of several annotators, most frequent first, with their numbers."""
    # Of several choices one is right, whatever annotators answered freely.
    several = [] if row.get("choices") else row.get("answers")
    given = Counter(several or [row["answer"]]).most_common()
    return given[0][0] if len(given) == 1 else ", ".join(f"{answer} ({number})" for answer, number in given)


def question_type(row: Mapping) -> str:
    """The kind of a question: its tag `question_type`, or its first two words."""
    tag = (row.get("tags") or {}).get("question_type")
    if tag:
        return tag if isinstance(tag, str) else ", ".join(tag)
    return " ".join(WORD.findall(row["question"].casefold())[:2]) or REST


def common_types(rows: Iterable[Mapping]) -> list[str]:
    """For each row its question type, or REST where few rows have it."""
    types = [question_type(row) for row in rows]
    kept = {name for name, number in Counter(types).most_common(TYPES) if number >= SHARE * len(types)}
    return [name if name in kept else REST for name in types]


def grouped(names: Iterable[str], members: Iterable) -> dict[str, list]:
    """Members by their names: those of the same name together, names in order of appearance, REST last."""
    groups: dict[str, list] = {}
    for name, member in zip(names, members, strict=True):
        groups.setdefault(name, []).append(member)
    return {name: groups[name] for name in sorted(groups, key=lambda name: name == REST)}


def _scored(row: dict, rule: str) -> dict | None:
    if "score" in row:
        return row
    judged = RULES[rule].judge(row)
    return None if judged is None else {**row, "score": judged["score"]}
