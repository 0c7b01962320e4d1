"""Submission file of the VQA leaderboard (test-dev and test-standard of VQAv2)."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.evaluator import BaseMetric

from mmgpt.evaluation.metrics.id_checks import check_ids, check_unique
from mmgpt.registry import METRICS
from mmgpt.utils.json_file import read_json_object


def question_ids(path: str | Path) -> list[int]:
    """The question ids in a file that visualqa.org distributes.

    Raises:
        ValueError: ids are missing, repeated or not integers; names the file.
    """
    try:
        ids = [question["question_id"] for question in read_json_object(path)["questions"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a file of VQA questions: it has no questions with a question_id") from error
    for number in ids:
        if type(number) is not int:
            raise ValueError(f"{path}: the leaderboard takes whole numbers as question_id, got {number!r}")
    try:
        check_unique(ids)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return ids


@METRICS.register_module()
class VQALeaderboardFile(BaseMetric):
    """Metric that writes the leaderboard's file: `[{"question_id": int, "answer": str}, ...]`, in the questions' order.

    Answers are written as generated, since the leaderboard normalizes them. The only score is `answers`, their number.

    Args:
        question_file: e.g. v2_OpenEnded_mscoco_test-dev2015_questions.json; each of its questions needs an answer.
        out_file: name of the file, in the folder of the evaluation.
        collect_device, prefix, collect_dir: arguments of MMEngine's BaseMetric.

    Raises:
        ValueError: a question has no answer, or several; or there are answers to other questions.
    """

    default_prefix = "leaderboard"
    folder = Path()  # folder of the evaluation, set by EvaluationLoop

    def __init__(
        self,
        question_file: str,
        out_file: str,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.question_ids = question_ids(question_file)
        self.out_file = Path(out_file)

    def check(self, samples: Iterable[dict]) -> None:
        """Check samples without predictions; a ValueError says which differ from the questions of the file."""
        check_ids(map(str, self.question_ids), (sample["id"] for sample in samples))

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Collect the answers of one batch. The samples hold everything, so that ``data_batch`` is not needed."""
        self.results.extend((sample["id"], sample["prediction"]) for sample in data_samples)

    def compute_metrics(self, results: list[tuple[str, str]]) -> dict[str, int]:
        """Write the file; returns the number of answers."""
        check_ids(map(str, self.question_ids), (question_id for question_id, _ in results))
        answers = dict(results)
        rows = [{"question_id": number, "answer": answers[str(number)]} for number in self.question_ids]
        path = self.folder / self.out_file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows), encoding="utf-8")
        return {"answers": len(rows)}
