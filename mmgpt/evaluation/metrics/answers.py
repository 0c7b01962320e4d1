"""Exact match of generated answers."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmgpt.registry import METRICS

WRITTEN = ("id", "dataset", "source", "images", "question", "prompt", "answer", "answers", "prediction")


def normalise(text: str) -> str:
    """Text as it is compared: without case, surrounding white space and one closing full stop."""
    return text.strip().removesuffix(".").rstrip().casefold()


def references(sample: dict) -> list[str]:
    """Every answer that counts as right: ``answer`` and ``answers``; without any, a ValueError names the sample."""
    texts = [text for text in (sample.get("answer"), *(sample.get("answers") or [])) if text]
    if not texts:
        raise ValueError(
            f"sample {sample.get('id')!r} of dataset {sample.get('dataset')!r} has neither `answer` nor `answers`: "
            "nothing to compare its prediction with"
        )
    return texts


def judge(sample: dict) -> dict:
    """The row kept of one prediction (a dict as the model's predict mode gives it), with ``correct`` (bool) added."""
    right = {normalise(text) for text in references(sample)}
    row = {key: sample.get(key) for key in WRITTEN}
    return row | {"correct": normalise(sample["prediction"]) in right}


def percent_by_dataset(rows: Sequence[dict]) -> tuple[dict[str, float], dict[str, int]]:
    """Percent right and number of questions for each dataset among judged rows, datasets in order of appearance."""
    hits: dict[str, list[bool]] = {}
    for row in rows:
        hits.setdefault(row["dataset"], []).append(row["correct"])
    return {name: 100 * sum(hit) / len(hit) for name, hit in hits.items()}, {name: len(h) for name, h in hits.items()}


def mean(values: Sequence[float]) -> float:
    """Plain mean of at least one value."""
    return sum(values) / len(values)


def write_rows(rows: Sequence[dict], path: str | Path) -> None:
    """Write rows as JSON lines; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


@METRICS.register_module()
class AnswerAccuracy(BaseMetric):
    """Percent of answers that equal a reference, for each dataset (one dataset is one task family), and their means.

    Keys: ``<dataset>`` in percent and ``questions/<dataset>`` as a count, ``mean`` over the datasets (each weighs
    the same), and ``<group>_mean`` for each entry of ``groups``.

    Args:
        groups: group name -> names of the datasets in it, e.g. ``dict(visual=['colour', 'shape'])``. A name that
            got no question is a ValueError: it is misspelt, or its data is empty.
        out_file: where to write every judged prediction as JSON lines.
        collect_device, prefix, collect_dir: as in MMEngine's BaseMetric.
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
                raise ValueError(f"AnswerAccuracy: group {name!r} names no dataset")
        self.groups = groups or {}
        self.out_file = out_file

    def check(self, samples: Iterable[dict]) -> None:
        """Raise a ValueError that names a sample whose answer could not be judged; the samples have no predictions."""
        for sample in samples:
            references(sample)

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Judge one batch of predictions; the answers travel in them, so ``data_batch`` is not needed."""
        self.results.extend(judge(sample) for sample in data_samples)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Percentages and counts of all judged predictions."""
        if not results:
            raise ValueError("AnswerAccuracy: there is no prediction to judge; the test data is empty")
        if self.out_file:
            write_rows(results, self.out_file)
        percent, count = percent_by_dataset(results)
        scores = percent | {f"questions/{name}": number for name, number in count.items()}
        scores["mean"] = mean(list(percent.values()))
        return scores | self._group_means(percent)

    def _group_means(self, percent: dict[str, float]) -> dict[str, float]:
        """The mean of each group; one that was evaluated in part only is left out, with a warning."""
        means = {}
        for name, members in self.groups.items():
            missing = [member for member in members if member not in percent]
            if missing:
                text = f"AnswerAccuracy: no mean of group {name!r}: no question of {missing} was evaluated"
                print_log(f"{text}, only of {sorted(percent)}", "current", logging.WARNING)
            else:
                means[f"{name}_mean"] = mean([percent[member] for member in members])
        return means
