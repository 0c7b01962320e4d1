"""Scores on the benchmarks of the field: one metric, configured by the name of a benchmark's scoring rule."""

import importlib.util
from collections.abc import Iterable, Iterator, Sequence

from mmengine.evaluator import BaseMetric

from mmgpt.evaluation.metrics.id_checks import check_unique
from mmgpt.evaluation.metrics.rules import find_rule
from mmgpt.registry import METRICS
from mmgpt.utils.errors import SampleError, SampleLocation


@METRICS.register_module()
class BenchmarkScores(BaseMetric):
    """Scores of predictions by the scoring rule of a benchmark, over all samples and by their tags.

    Keys: the scores of the rule (``accuracy``, ``F1``, ``CIDEr``, ... in percent), ``questions``, their number, and
    both again as ``<tag>/<value>/<key>`` for each tag in `by`.

    Args:
        rule: name in the registry SCORES (see `mmgpt.evaluation.metrics.rules`): 'vqa' (VQAv2, OK-VQA), 'vizwiz',
            'textvqa', 'openflamingo' (VQAv2, OK-VQA, VizWiz and TextVQA as OpenFlamingo scores them), 'direct_answer'
            (A-OKVQA), 'choice' (A-OKVQA, ScienceQA, SNLI-VE), 'exact' (GQA, OCR-VQA), 'yes_no' (POPE), 'caption' (COCO
            Caption, Flickr30k, NoCaps).
        by: tags of the samples by which scores are grouped, e.g. ['question_type', 'answer_type'].
        collect_device, prefix, collect_dir: arguments of MMEngine's BaseMetric; `prefix` is by default the rule's name.

    Raises:
        ValueError: unknown rule; a tag that no sample has; a repeated id; no samples; missing references or choices.
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
        self.rule, self.by = find_rule(rule), tuple(by)
        package = self.rule.package
        if package and importlib.util.find_spec(package) is None:
            raise ImportError(f"rule {rule!r} needs {package}: pip install {package}")

    def check(self, samples: Iterable[dict]) -> None:
        """Check samples without predictions.

        Raises:
            SampleError: predictions of a sample could not be scored, or the rule fails on an empty one.
        """
        self.rule.warn()
        results = []
        for sample in samples:
            try:
                results.append(self._score(sample | {"prediction": ""}))
            except SampleError:
                raise
            except Exception as error:
                reason = f"its scoring rule fails on an empty prediction: {type(error).__name__}: {error}"
                raise SampleError(reason, SampleLocation.of(sample)) from error
        # The generator raises the error for a tag that no sample has only when it comes to that tag.
        list(self._groups(results))

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Score one batch of predictions. The samples hold their references, so that ``data_batch`` is not needed."""
        # Samples that do not count have a row, too: MMEngine merges the rows of all processes by their positions.
        self.results.extend(map(self._score, data_samples))

    def compute_metrics(self, results: list[tuple[dict, dict | None]]) -> dict[str, float]:
        """Scores of all scored predictions."""
        scores = {}
        for prefix, rows in self._groups(results):
            summary = self.rule.summarize(rows) | {"questions": len(rows)}
            scores |= {f"{prefix}{key}": value for key, value in summary.items()}
        return scores

    def _score(self, sample: dict) -> tuple[dict, dict | None]:
        """Identity and tags of a sample, and its row from the rule's `score_sample`."""
        return {"id": (sample["dataset"], sample["id"]), "tags": sample.get("tags", {})}, self.rule.score_sample(sample)

    def _groups(self, results: Sequence[tuple[dict, dict | None]]) -> Iterator[tuple[str, list[dict]]]:
        """Pairs (prefix of the keys, rows): first all rows with '', then each group with '<tag>/<value>/'.

        A row's tag is a string, or a list of strings: then the row belongs to several groups.
        """
        check_unique(identity["id"] for identity, _ in results)
        rows = [identity | scored for identity, scored in results if scored is not None]
        if not rows:
            raise ValueError("BenchmarkScores: there is no prediction to score; the test data is empty")
        yield "", rows
        for tag in self.by:
            members: dict[str, list[dict]] = {}
            for row in rows:
                values = row["tags"].get(tag, [])
                for value in [values] if isinstance(values, str) else values:
                    members.setdefault(value, []).append(row)
            if not members:
                tags = sorted({name for row in rows for name in row["tags"]})
                raise ValueError(f"no sample has a tag {tag!r} to group by; tags found: {', '.join(tags) or 'none'}")
            yield from ((f"{tag}/{value}/", members[value]) for value in sorted(members))
