"""Hook that logs and draws answers to a few held-out questions during training."""

from collections.abc import Sequence

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner

from mmgpt.engine.evaluation_loop import cut_predictions
from mmgpt.evaluation.metrics.answers import references, scored_row
from mmgpt.evaluation.results_reader import expected_answer
from mmgpt.evaluation.row_images import RowImages
from mmgpt.registry import DATASETS, HOOKS
from mmgpt.visualization.answer_sheet import sheet_pixels, side_by_side


@HOOKS.register_module()
class AnswersHook(Hook):
    """Lets the model answer held-out questions, for the log and as an image for the visualizer's backends.

    All processes generate the answers, since the model may be sharded, and the first one logs them. Training is not
    affected: no gradients are computed, and the loop seeds the random generators for each batch.

    Args:
        loader: config of a data loader of questions, e.g. "${test_dataloader}": its dataset and collate function.
        count: number of questions, spread evenly over the dataset.
        interval: batches between two sets of answers.

    Raises:
        ValueError: `count` or `interval` below 1, or a question without an answer.
    """

    def __init__(self, loader: dict, count: int = 4, interval: int = 200):
        if count < 1 or interval < 1:
            raise ValueError(f"AnswersHook: count={count} and interval={interval} must be 1 or more")
        self.loader, self.count, self.interval = loader, count, interval
        self.images = RowImages(loader["dataset"])
        self.batch: dict | None = None

    def before_train(self, runner: Runner) -> None:
        """Read the questions. All processes do so, since they read annotation files together (see `load_once`).

        Raises:
            ValueError: a question has no answer; names the sample.
        """
        dataset = DATASETS.build(self.loader["dataset"])
        count = min(self.count, len(dataset))
        collate = dict(self.loader["collate_fn"])
        collate_fn = FUNCTIONS.get(collate.pop("type"))
        self.batch = collate_fn([dataset[(2 * i + 1) * len(dataset) // (2 * count)] for i in range(count)], **collate)
        for question in self.batch["metas"]:
            references(question)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        """Answer the questions every `interval` batches."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        rows = self.answer(runner.model, runner.cfg.get("test_cfg", {}).get("cut_at", ()))
        if not is_main_process():
            return
        batches, correct = runner.iter + 1, sum(row["correct"] for row in rows)
        lines = [f"held-out answers after {batches} batches, {correct} of {len(rows)} right"]
        lines += [
            f"{row['dataset']}: {row['question']!r}: {row['prediction']!r}, expected {expected_answer(row)!r}"
            for row in rows
        ]
        runner.logger.info("\n    ".join(lines))
        sheet = [{**row, "image": side_by_side(self.images.load(row)), "answer": expected_answer(row)} for row in rows]
        runner.visualizer.add_image("answers", sheet_pixels(sheet), batches)

    @torch.no_grad()
    def answer(self, model: torch.nn.Module, cut_at: Sequence[str] = ()) -> list[dict]:
        """Scored answers of a model, cut as in EvaluationLoop; the model keeps its mode (training or not)."""
        training = model.training
        model.eval()
        rows = model.test_step(self.batch)
        model.train(training)
        cut_predictions(rows, cut_at)
        return [scored_row(row) for row in rows]
