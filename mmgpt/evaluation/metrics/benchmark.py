"""Scores on the field's benchmarks: one metric, and by name the rule of each benchmark."""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from mmengine.evaluator import BaseMetric

from mmgpt.evaluation.metrics import caption, choice, vqa, yes_no
from mmgpt.evaluation.metrics.answers import mean, normalise, references
from mmgpt.evaluation.metrics.ids import check_unique
from mmgpt.registry import METRICS
from mmgpt.utils.errors import SampleError, SampleLocation

ANNOTATORS = 10


class Rule(NamedTuple):
    """How a benchmark judges: one sample by itself, and many together.

    Attributes:
        judge: what is kept of a sample, a dict; None when it is not part of the benchmark.
        summarise: scores of at least one of these dicts.
        needs: what a sample is judged by, without its prediction; None when it is not part of the benchmark.
            Raises a ValueError that names a sample without it.
        package: what has to be installed.
        warn: tells in the log which scores will be missing.
    """

    judge: Callable[[dict], dict | None]
    summarise: Callable[[Sequence[dict]], dict[str, float]]
    needs: Callable[[dict], object]
    package: str | None = None
    warn: Callable[[], object] = bool


def percent(rows: Sequence[dict]) -> dict[str, float]:
    """Accuracy: the mean of ``score``, in percent."""
    return {"accuracy": 100 * mean([row["score"] for row in rows])}


def scored(score: Callable[[dict], float], needs: Callable[[dict], object]) -> Rule:
    """The rule of an accuracy, from the score of a sample, 0 to 1."""
    return Rule(lambda sample: {"score": score(sample)}, percent, needs)


def voted(accuracy: Callable[[str, Sequence[str]], float]) -> Rule:
    """The rule of an accuracy of a prediction among the answers of ten annotators."""
    return scored(lambda sample: accuracy(sample["prediction"], ten_answers(sample)), ten_answers)


def ten_answers(sample: dict) -> list[str]:
    """The answers of the annotators; a ValueError names a sample that has not ten, as when equal ones were merged."""
    answers = sample.get("answers") or []
    if len(answers) != ANNOTATORS:
        reason = f"VQA accuracy needs {ANNOTATORS} annotators' answers, got {answers!r}"
        raise SampleError(reason, SampleLocation.of(sample))
    return answers


def exact(sample: dict) -> float:
    """1 when the prediction is a reference but for case, white space around it and a closing full stop, else 0."""
    return float(normalise(sample["prediction"]) in map(normalise, references(sample)))


def direct_answers(sample: dict) -> list[str] | None:
    """A-OKVQA's direct answers. Its evaluation leaves out questions whose tag ``difficult_direct_answer`` is true."""
    difficult = sample.get("tags", {}).get("difficult_direct_answer") == "true"
    return None if difficult else ten_answers(sample)


def direct_answer(sample: dict) -> dict | None:
    """What is kept of a prediction of A-OKVQA's direct answer."""
    answers = direct_answers(sample)
    return None if answers is None else {"score": vqa.direct_answer_accuracy(sample["prediction"], answers)}


RULES = {
    "vqa": voted(vqa.vqa_accuracy),
    "openflamingo": voted(vqa.openflamingo_accuracy),
    "vizwiz": voted(vqa.vizwiz_accuracy),
    "textvqa": voted(vqa.textvqa_accuracy),
    "direct_answer": Rule(direct_answer, percent, direct_answers),
    "choice": scored(choice.choice_score, choice.right_choice),
    "exact": scored(exact, references),
    "yes_no": Rule(yes_no.judge_yes_no, yes_no.yes_no_scores, yes_no.is_yes),
    "caption": Rule(
        caption.judge_caption, caption.caption_scores, caption.true_captions, caption.PACKAGE, caption.find_java
    ),
}


def groups(rows: Sequence[dict], by: Sequence[str]) -> Iterator[tuple[str, list[dict]]]:
    """Names and members: first all rows under '', then '<tag>/<value>/' for each value of the tags in `by`.

    A row's tag is a string, or a list of strings: then the row belongs to several groups.
    """
    yield "", list(rows)
    for tag in by:
        members: dict[str, list[dict]] = {}
        for row in rows:
            values = row["tags"].get(tag, [])
            for value in [values] if isinstance(values, str) else values:
                members.setdefault(value, []).append(row)
        if not members:
            found = sorted({name for row in rows for name in row["tags"]})
            raise ValueError(f"no sample has a tag {tag!r} to group by; tags found: {', '.join(found) or 'none'}")
        yield from ((f"{tag}/{value}/", members[value]) for value in sorted(members))


@METRICS.register_module()
class BenchmarkScores(BaseMetric):
    """Scores of predictions by the rule of a benchmark, of all samples and by their tags.

    Keys: what the rule gives (``accuracy``, ``F1``, ``CIDEr``, ... in percent), ``questions``, their number, and both
    again as ``<tag>/<value>/<key>`` for each tag in `by`.

    Args:
        rule: 'vqa' (VQAv2, OK-VQA), 'vizwiz', 'textvqa', 'openflamingo' (these four as OpenFlamingo computes them),
            'direct_answer' (A-OKVQA), 'choice' (A-OKVQA, ScienceQA, SNLI-VE), 'exact' (GQA, OCR-VQA), 'yes_no' (POPE),
            'caption' (COCO Caption, Flickr30k, NoCaps).
        by: tags of the samples, e.g. ['question_type', 'answer_type'].
        collect_device, prefix, collect_dir: as in MMEngine's BaseMetric; the prefix is the rule's name by default.

    Raises:
        ValueError: unknown rule; a tag that no sample has; an id that occurs twice; no samples; references or choices
            that the rule cannot do without are missing.
        ImportError: a package that the rule needs is not installed.
    """

    def __init__(
        self,
        rule: str,
        by: Sequence[str] = (),
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix or rule, collect_dir=collect_dir)
        if rule not in RULES:
            raise ValueError(f"unknown rule {rule!r}: choose among {', '.join(RULES)}")
        self.rule, self.by = RULES[rule], tuple(by)
        if self.rule.package and importlib.util.find_spec(self.rule.package) is None:
            raise ImportError(f"rule {rule!r} needs {self.rule.package}: pip install {self.rule.package}")

    def check(self, samples: Iterable[dict]) -> None:
        """Raise a ValueError where predictions of the samples could not be judged.

        Args:
            samples: as predictions, but without these.
        """
        self.rule.warn()
        results = [(_place(sample), None if self.rule.needs(sample) is None else {}) for sample in samples]
        for _ in self._groups(results):
            pass

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Judges one batch of predictions; the references travel in them, so ``data_batch`` is not needed."""
        # One row for each sample, counted or not: MMEngine merges the processes' rows by their places.
        self.results.extend((_place(sample), self.rule.judge(sample)) for sample in data_samples)

    def _groups(self, results: Sequence[tuple[dict, dict | None]]) -> Iterator[tuple[str, list[dict]]]:
        check_unique(place["id"] for place, _ in results)
        judged = [place | kept for place, kept in results if kept is not None]
        if not judged:
            raise ValueError("BenchmarkScores: there is no prediction to judge; the test data is empty")
        return groups(judged, self.by)

    def compute_metrics(self, results: list[tuple[dict, dict | None]]) -> dict[str, float]:
        """Scores of all judged predictions."""
        scores = {}
        for group, rows in self._groups(results):
            summary = self.rule.summarise(rows) | {"questions": len(rows)}
            scores |= {f"{group}{key}": value for key, value in summary.items()}
        return scores


def _place(sample: dict) -> dict:
    return {"id": (sample["dataset"], sample["id"]), "tags": sample.get("tags", {})}
