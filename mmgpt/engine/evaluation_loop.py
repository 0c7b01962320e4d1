"""Evaluation loop of `tools/test.py`: it answers every sample once, in any number of processes, and can be resumed."""

import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.runner import Runner, TestLoop
from torch.utils.data import Sampler

from mmgpt.datasets.prompts import check_ends, find_template
from mmgpt.evaluation.predictions import Predictions
from mmgpt.evaluation.readiness import check_questions, questions_of
from mmgpt.evaluation.results import RESULT, circumstances, digests, evaluation_settings, write_json
from mmgpt.registry import LOOPS
from mmgpt.utils.lock import locked

from .loops import seed_iteration
from .resume import on_main_process
from .trainable import unwrap_model

ADVICE = "wait for the end of that evaluation, or name another folder with --work-dir"


class WholeBatches(Sampler):
    """Batch sampler whose batches are equal for any number n of processes, each of which takes every n-th batch.

    Padding, and with it the last bits of an answer's score, then do not depend on which process computes it, or when.

    Args:
        sampler: MMEngine's DefaultSampler, which has the dataset, rank and world size.
        batch_size: samples per batch.

    Attributes:
        answered: indices of samples that are answered already; a batch is left out when all of its samples are.
    """

    def __init__(self, sampler: Sampler, batch_size: int):
        self.sampler, self.batch_size, self.answered = sampler, batch_size, frozenset()

    def __len__(self) -> int:
        return len(self.batches())

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches())

    def batches(self) -> list[list[int]]:
        """Indices of the samples of each batch of this process."""
        indices = range(len(self.sampler.dataset))
        batches = [list(indices[i : i + self.batch_size]) for i in range(0, len(indices), self.batch_size)]
        remaining = [batch for batch in batches if not self.answered.issuperset(batch)]
        return remaining[self.sampler.rank :: self.sampler.world_size]


@LOOPS.register_module()
class EvaluationLoop(TestLoop):
    """Answers the test data, writes every prediction at once, and at the end a result with all that it depends on.

    The folder is `<work_dir>/evaluation/<checkpoint>-<digest of the model's settings>-<digest of the metrics>`. In it,
    `predictions.jsonl` has a row for each sample in the order of the data, and `result.json` the metrics, the number of
    samples, the settings with checksums, the command, versions and seconds.

    Args:
        runner: MMEngine's Runner.
        dataloader: config; its sampler is replaced by WholeBatches.
        evaluator: config, or MMEngine's Evaluator.
        resume: whether to keep the predictions of an interrupted evaluation with the same settings, or of one whose
            metrics failed; where there is none, those of an evaluation with other metrics.
        cut_at: words at which generated text is cut, e.g. ['Question', 'Answer', 'Short'] for a base model that
            continues with another question (as in OpenFlamingo's evaluation).
    """

    def __init__(self, runner: Runner, dataloader: dict, evaluator, resume: bool = False, cut_at: Sequence[str] = ()):
        sampler = dict(type="DefaultSampler", shuffle=False)
        loader = {**dataloader, "sampler": sampler, "batch_sampler": dict(type=WholeBatches)}
        super().__init__(runner, loader, evaluator)
        self.resume, self.cut_at = resume, tuple(cut_at)
        model = unwrap_model(runner)
        # Models from outside of this project may have no generation settings.
        generation = getattr(model, "settings_in_force", dict)()
        # Only the first process computes the checksums, since the files may have gigabytes.
        tokenizer, template = getattr(model, "tokenizer", None), runner.cfg.get("question_template")
        self.settings = on_main_process(
            lambda: evaluation_settings(runner.cfg, runner._load_from, generation, tokenizer)
        )
        if template and generation:
            ends = [generation["tokens"][str(i)] for i in generation["eos_token_id"]]
            check_ends(find_template(template, tokenizer), tokenizer.eos_token, ends)
        name = Path(runner._load_from).stem if runner._load_from else "untuned"
        self.folder = Path(runner.work_dir) / "evaluation" / "-".join([name, *digests(self.settings)])

    def run(self) -> dict:
        """Answer the samples that have no answer yet, and return the metrics of all predictions."""
        runner, sampler, size = self.runner, self.dataloader.batch_sampler, len(self.dataloader.dataset)
        with locked(self.folder, ADVICE) if is_main_process() else nullcontext():
            start, predictions = time.perf_counter(), Predictions(self.folder, get_rank())
            # 1. Check that the metrics can score the answers, and gather or remove the predictions of earlier runs.
            if is_main_process():
                check_questions(self.evaluator.metrics, questions_of(self.dataloader.dataset))
                if not self.resume:
                    predictions.clear()
                elif not predictions.read():
                    # The evaluations in these folders differ in their metrics alone; the most complete one is copied.
                    folders = self.folder.parent.glob(f"{self.folder.name.rpartition('-')[0]}-*")
                    candidates = [Predictions(folder).read() for folder in sorted(folders)]
                    predictions.add(max(candidates, key=len, default={}).values())
                if self.resume:
                    predictions.gather()
            barrier()
            sampler.answered = frozenset(predictions.read())
            barrier()
            if self.resume:
                print_log(f"{self.folder}: {len(sampler.answered)} of {size} samples are answered", "current")
            # 2. Answer the batches that have a sample without an answer.
            runner.call_hook("before_test")
            runner.call_hook("before_test_epoch")
            runner.model.eval()
            for step, (indices, batch) in enumerate(zip(sampler.batches(), self.dataloader, strict=True)):
                self.answer(step, batch, indices, predictions)
            barrier()

            # 3. Score all predictions, and write them with the result. Only the first process does this.
            def finish() -> dict:
                seconds = round(time.perf_counter() - start, 1)
                try:
                    metrics = score(predictions.finish(size), self.evaluator.metrics, self.folder)
                except Exception:
                    text = "the answers are saved, but could not be scored; --resume scores them without asking again"
                    print_log(f"{self.folder}: {text}", "current", logging.ERROR)
                    raise
                result = {"metrics": metrics, "samples": size, "settings": self.settings, **circumstances()}
                result |= {"processes": get_world_size(), "seconds": seconds}
                write_json(result, self.folder / RESULT)
                print_log(f"written: {self.folder / RESULT}", "current")
                return metrics

            metrics = on_main_process(finish)
            runner.call_hook("after_test_epoch", metrics=metrics)
            # MMEngine's LoggerHook gives the visualizer's backends the metrics of validation only.
            runner.visualizer.add_scalars(metrics)
            runner.call_hook("after_test")
            return metrics

    @torch.inference_mode()
    def answer(self, step: int, batch: dict, indices: list[int], predictions: Predictions) -> None:
        """Answer one batch, whose samples have these indices in the dataset."""
        self.runner.call_hook("before_test_iter", batch_idx=step, data_batch=batch)
        # Sampled tokens depend on the batch, not on the process that answers it, or on the batches before.
        seed_iteration(self.runner.seed, indices[0], rank=0)
        rows = self.runner.model.test_step(batch)
        cut_predictions(rows, self.cut_at)
        predictions.add({"index": index, **row} for index, row in zip(indices, rows, strict=True))
        self.runner.call_hook("after_test_iter", batch_idx=step, data_batch=batch, outputs=rows)


def score(rows: Sequence[dict], metrics: Sequence[BaseMetric], folder: Path) -> dict[str, float]:
    """Scores of predictions by the names of their metrics, in one process.

    Args:
        rows: samples with their predictions.
        folder: of the files that metrics write.

    Raises:
        ValueError: two metrics give a score of the same name.
    """
    scores = {}
    for metric in metrics:
        if hasattr(metric, "folder"):
            metric.folder = folder
        metric.process(None, rows)
        # metric.evaluate() is not called, since all processes would have to take part in it.
        for name, value in metric.compute_metrics(metric.results).items():
            name = "/".join(filter(None, (metric.prefix, name)))
            if name in scores:
                raise ValueError(f"two metrics of test_evaluator give {name!r}: set another `prefix` for one of them")
            scores[name] = value
        metric.results.clear()
    return scores


def cut_predictions(rows: Sequence[dict], words: Sequence[str]) -> None:
    """Cut generated predictions at the first of the words, and strip them; those chosen by their scores stay."""
    if not words:
        return
    pattern = re.compile("|".join(map(re.escape, words)))
    for row in rows:
        if "scores" not in row:
            row["prediction"] = pattern.split(row["prediction"], maxsplit=1)[0].strip()
