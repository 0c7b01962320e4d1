"""Reader of the folders that EvaluationLoop writes: rows with their scores, and types of questions."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmgpt.evaluation.metrics.rules import find_rule
from mmgpt.evaluation.predictions import Predictions
from mmgpt.evaluation.results import RESULT
from mmgpt.utils.json_file import read_json_object

# The most frequent question types are named, each of them the type of at least this share of all questions.
MAX_TYPES, MIN_SHARE = 20, 0.01
OTHER_TYPES = "(other questions)"
WORD = re.compile(r"[^\W_]+")


class SavedEvaluation(NamedTuple):
    """An evaluation read from its folder.

    Attributes:
        folder: its folder.
        result: content of its result.json.
        rule: name of the rule that scores its samples.
        rows: its predictions in the order of the data, each with a `score` from 0 to 1.
    """

    folder: Path
    result: dict
    rule: str
    rows: list[dict]


def read_evaluation(path: str | Path) -> SavedEvaluation:
    """The evaluation in a folder, or the one that a result.json belongs to.

    The score of a row is its key `score`, if it has one; otherwise it comes from the evaluation's rule (see `rule_of`).
    Rows that the rule leaves out are left out here, too.

    Raises:
        FileNotFoundError: the folder holds no evaluation; names those in its subfolders.
        ValueError: predictions are missing, or a sample has no reference to compare with.
    """
    folder = Path(path).parent if Path(path).name == RESULT else Path(path)
    if not (folder / RESULT).is_file():
        candidates = " or ".join(sorted(str(file.parent) for file in folder.glob(f"**/{RESULT}")))
        hint = f"; did you mean {candidates}?" if candidates else ""
        raise FileNotFoundError(f"{folder} holds no {RESULT}{hint}")
    result = read_json_object(folder / RESULT)
    predictions = Predictions(folder).read()
    if len(predictions) != result["samples"]:
        raise ValueError(f"{folder}: {len(predictions)} predictions, but {RESULT} is of {result['samples']} samples")
    name = rule_of(result["settings"]["metrics"])
    rule, rows = find_rule(name), []
    for _, row in sorted(predictions.items()):
        scored = row if "score" in row else rule.score_sample(row)
        if scored is not None:
            rows.append({**row, "score": scored["score"]})
    return SavedEvaluation(folder, result, name, rows)


def rule_of(metrics: Mapping | Sequence[Mapping]) -> str:
    """Name of the first rule among an evaluation's metrics that scores samples one by one; 'exact' if none does.

    Raises:
        ValueError: perplexity is the only metric of the evaluation; or a rule is unknown.
    """
    metrics = [metrics] if isinstance(metrics, Mapping) else metrics
    if all(metric.get("type") == "Perplexity" for metric in metrics):
        raise ValueError("an evaluation of perplexity has no answers to look at")
    names = [metric["rule"] for metric in metrics if "rule" in metric]
    return next((name for name in names if find_rule(name).scores_samples), "exact")


def is_right(score: float) -> bool:
    """Whether a score counts as a correct answer where only correct and wrong are told apart."""
    return score >= 0.5


def expected_answer(row: Mapping) -> str:
    """The reference answer as text; different answers of annotators with their counts, most frequent first."""
    # In multiple choice one choice is correct, whatever the annotators answered freely.
    annotators = [] if row.get("choices") else row.get("answers")
    counts = Counter(annotators or [row["answer"]]).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{answer} ({count})" for answer, count in counts)


def question_type(row: Mapping) -> str:
    """Type of a question: its tag `question_type`, or its first two words."""
    tag = (row.get("tags") or {}).get("question_type")
    if tag:
        return tag if isinstance(tag, str) else ", ".join(tag)
    return " ".join(WORD.findall(row["question"].casefold())[:2]) or OTHER_TYPES


def common_types(rows: Iterable[Mapping]) -> list[str]:
    """The question type of each row; OTHER_TYPES for rare types."""
    types = [question_type(row) for row in rows]
    common = {name for name, count in Counter(types).most_common(MAX_TYPES) if count >= MIN_SHARE * len(types)}
    return [name if name in common else OTHER_TYPES for name in types]


def grouped(names: Iterable[str], members: Iterable) -> dict[str, list]:
    """Members grouped by their names, in the order in which the names appear, but OTHER_TYPES last."""
    groups: dict[str, list] = {}
    for name, member in zip(names, members, strict=True):
        groups.setdefault(name, []).append(member)
    return {name: groups[name] for name in sorted(groups, key=lambda name: name == OTHER_TYPES)}
