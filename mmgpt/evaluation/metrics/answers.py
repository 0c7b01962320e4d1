"""Exact match of generated answers."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmgpt.registry import METRICS, SCORES

ROW_KEYS = ("id", "dataset", "source", "images", "question", "prompt", "answer", "answers", "prediction")


def normalize(text: str) -> str:
    """Normalized text for exact match: without case, surrounding white space and one closing full stop."""
    return text.strip().removesuffix(".").rstrip().casefold()


def references(sample: dict) -> list[str]:
    """The reference answers of a sample: its ``answer`` and ``answers``.

    Raises:
        ValueError: the sample has none; names it.
    """
    texts = [text for text in (sample.get("answer"), *(sample.get("answers") or [])) if text]
    if not texts:
        raise ValueError(
            f"sample {sample.get('id')!r} of dataset {sample.get('dataset')!r} has neither `answer` nor `answers`: "
            "there is no reference to compare its prediction with"
        )
    return texts


def scored_row(sample: dict) -> dict:
    """The row of one prediction (a dict as the model's predict mode returns it), with ``correct`` (bool) added."""
    accepted = {normalize(text) for text in references(sample)}
    row = {key: sample.get(key) for key in ROW_KEYS}
    return row | {"correct": normalize(sample["prediction"]) in accepted}


def percent_by_dataset(rows: Sequence[dict]) -> tuple[dict[str, float], dict[str, int]]:
    """Percentage of correct answers and number of questions by dataset, in the order in which the datasets appear."""
    outcomes: dict[str, list[bool]] = {}
    for row in rows:
        outcomes.setdefault(row["dataset"], []).append(row["correct"])
    counts = {name: len(correct) for name, correct in outcomes.items()}
    return {name: 100 * sum(correct) / counts[name] for name, correct in outcomes.items()}, counts


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one value."""
    return sum(values) / len(values)


@SCORES.register_module("exact")
def exact_match(sample: dict) -> float:
    """Score of an exact match (GQA, OCR-VQA): 1 when the normalized prediction equals a reference, else 0."""
    return float(scored_row(sample)["correct"])


def write_rows(rows: Sequence[dict], path: str | Path) -> None:
    """Write rows as JSON lines; missing folders are created."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


@METRICS.register_module()
class AnswerAccuracy(BaseMetric):
    """Exact-match accuracy of each dataset (a dataset is a task family) and its means.

    Keys: ``<dataset>`` in percent and ``questions/<dataset>`` as a count, ``mean`` over the datasets (all of equal
    weight), and ``<group>_mean`` for each entry of ``groups``.

    Args:
        groups: group name -> names of the datasets in it, e.g. ``dict(visual=['colour', 'shape'])``. The mean
            of a group is left out, with a warning, when one of its datasets has no question.
        out_file: file to which all scored predictions are written as JSON lines.
        collect_device, prefix, collect_dir: arguments of MMEngine's BaseMetric.
    """

    default_prefix = "accuracy"

    def __init__(
        self,
        groups: dict[str, list[str]] | None = None,
        out_file: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        for name, members in (groups or {}).items():
            if not members:
                raise ValueError(f"AnswerAccuracy: group {name!r} is empty; name its datasets")
        self.groups = groups or {}
        self.out_file = out_file

    def check(self, samples: Iterable[dict]) -> None:
        """Check samples without predictions; a ValueError names a sample without references."""
        for sample in samples:
            references(sample)

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Score one batch of predictions. The samples hold their references, so that ``data_batch`` is not needed."""
        self.results.extend(scored_row(sample) for sample in data_samples)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Percentages and counts of all scored predictions."""
        if not results:
            raise ValueError("AnswerAccuracy: there is no prediction to score; the test data is empty")
        if self.out_file:
            write_rows(results, self.out_file)
        percent, count = percent_by_dataset(results)
        scores = percent | {f"questions/{name}": number for name, number in count.items()}
        scores["mean"] = mean(list(percent.values()))
        for name, members in self.groups.items():
            missing = [member for member in members if member not in percent]
            if missing:
                text = f"AnswerAccuracy: no mean of group {name!r}: no question of {missing} was evaluated"
                print_log(f"{text}, only of {sorted(percent)}", "current", logging.WARNING)
            else:
                scores[f"{name}_mean"] = mean([percent[member] for member in members])
        return scores
