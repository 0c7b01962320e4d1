"""A few held-out questions, answered again and again during training."""

from collections.abc import Sequence

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner

from mmgpt.engine.evaluation_loop import shorten
from mmgpt.evaluation.images import RowImages
from mmgpt.evaluation.metrics.answers import judge, references
from mmgpt.evaluation.results_reader import expected_answer
from mmgpt.registry import DATASETS, HOOKS
from mmgpt.visualization.answer_sheet import sheet_pixels, side_by_side


@HOOKS.register_module()
class AnswersHook(Hook):
    """Lets the model answer a few held-out questions: in the log, and as a picture for the visualizer's backends.

    All processes do it, since they may share the model, and the first one tells of it. Training goes on as it would
    have without: nothing is learned, and the loop sets the random generators anew for each step.

    Args:
        loader: config of a data loader of questions, e.g. "${test_dataloader}": its dataset and collate function.
        count: number of questions, spread evenly over the dataset.
        interval: of the answers, in batches.

    Raises:
        ValueError: `count` or `interval` below 1, or a question without an answer.
    """

    def __init__(self, loader: dict, count: int = 4, interval: int = 200):
        if count < 1 or interval < 1:
            raise ValueError(f"AnswersHook: count={count} and interval={interval} must be 1 or more")
        self.loader, self.count, self.interval = loader, count, interval
        self.pictures = RowImages(loader["dataset"])
        self.batch: dict | None = None

    def before_train(self, runner: Runner) -> None:
        """Read the questions, in all processes: they read files together. A ValueError names one without an answer."""
        dataset = DATASETS.build(self.loader["dataset"])
        count = min(self.count, len(dataset))
        collate = dict(self.loader["collate_fn"])
        function = FUNCTIONS.get(collate.pop("type"))
        self.batch = function([dataset[(2 * i + 1) * len(dataset) // (2 * count)] for i in range(count)], **collate)
        for question in self.batch["metas"]:
            references(question)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        """Answer, when it is time."""
        if self.every_n_train_iters(runner, self.interval):
            rows = self.answer(runner.model, runner.cfg.get("test_cfg", {}).get("cut_at", ()))
            if not is_main_process():
                return
            runner.logger.info(told(rows, runner.iter + 1))
            shown = [
                {**row, "image": side_by_side(self.pictures.load(row)), "answer": expected_answer(row)} for row in rows
            ]
            runner.visualizer.add_image("answers", sheet_pixels(shown), runner.iter + 1)

    @torch.no_grad()
    def answer(self, model: torch.nn.Module, cut_at: Sequence[str] = ()) -> list[dict]:
        """Judged answers of a model, which is left in the mode that it was in; cut as in EvaluationLoop."""
        training = model.training
        model.eval()
        rows = model.test_step(self.batch)
        model.train(training)
        shorten(rows, cut_at)
        return [judge(row) for row in rows]


def told(rows: Sequence[dict], step: int) -> str:
    """Judged answers as lines of a log."""
    right = sum(row["correct"] for row in rows)
    lines = [f"held-out answers after {step} batches, {right} of {len(rows)} right"]
    lines += [
        f"{row['dataset']}: {row['question']!r}: {row['prediction']!r}, expected {expected_answer(row)!r}"
        for row in rows
    ]
    return "\n    ".join(lines)
