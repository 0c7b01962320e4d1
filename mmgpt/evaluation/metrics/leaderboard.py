"""The file that the VQA leaderboard takes (test-dev and test-standard of VQAv2)."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.evaluator import BaseMetric

from mmgpt.evaluation.metrics.ids import check_ids, check_unique
from mmgpt.registry import METRICS
from mmgpt.utils.json_file import read_json_object


def question_ids(path: str | Path) -> list[int]:
    """The ids of a file of questions as visualqa.org distributes it: whole numbers, each once.

    Raises:
        ValueError: they are not; names the file.
    """
    try:
        names = [question["question_id"] for question in read_json_object(path)["questions"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no file of VQA questions: it has no questions with a question_id") from error
    for name in names:
        if type(name) is not int:
            raise ValueError(f"{path}: the leaderboard takes whole numbers as question_id, got {name!r}")
    try:
        check_unique(names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return names


@METRICS.register_module()
class VQALeaderboardFile(BaseMetric):
    """Writes `[{"question_id": int, "answer": str}, ...]`, in the order of the questions; the answers are as generated.

    The leaderboard normalizes answers itself. Its only score is `answers`, their number.

    Args:
        question_file: e.g. v2_OpenEnded_mscoco_test-dev2015_questions.json; each of its questions needs an answer.
        out_file: name of the file, in the folder of the evaluation.
        collect_device, prefix, collect_dir: as in MMEngine's BaseMetric.

    Raises:
        ValueError: a question has no answer, or several; or there are answers to other questions.
    """

    default_prefix = "leaderboard"
    folder = Path()  # set by EvaluationLoop: each evaluation has its own

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
        """Raise a ValueError where the samples, which have no predictions, are not the questions of the file."""
        check_ids(map(str, self.question_ids), (sample["id"] for sample in samples))

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keeps the answers of one batch; all that is needed travels in the samples."""
        self.results.extend((sample["id"], sample["prediction"]) for sample in data_samples)

    def compute_metrics(self, results: list[tuple[str, str]]) -> dict[str, int]:
        """Writes the file."""
        check_ids(map(str, self.question_ids), (name for name, _ in results))
        answers = dict(results)
        rows = [{"question_id": name, "answer": answers[str(name)]} for name in self.question_ids]
        path = self.folder / self.out_file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows), encoding="utf-8")
        return {"answers": len(rows)}
