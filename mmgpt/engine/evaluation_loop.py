"""The loop of `tools/test.py`: each sample answered once, by any number of processes, also after a break."""

import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from mmengine.dist import barrier, broadcast_object_list, get_rank, get_world_size, is_main_process
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, TestLoop
from torch.utils.data import Sampler

from mmgpt.datasets.prompts import check_ends
from mmgpt.engine.loops import seed_iteration
from mmgpt.evaluation.predictions import Predictions
from mmgpt.evaluation.readiness import check_questions, questions_of
from mmgpt.evaluation.results import RESULT, circumstances, digests, evaluation_settings, write_json
from mmgpt.registry import LOOPS
from mmgpt.utils.lock import locked

ADVICE = "wait for the end of that evaluation, or name another folder with --work-dir"


class WholeBatches(Sampler):
    """Batches of neighbouring samples, the same for any number of processes; each process takes every n-th of them.

    So that padding, and with it the last bits of an answer's score, do not depend on who computes it, or when.

    Args:
        sampler: MMEngine's DefaultSampler; gives the dataset, rank and world size.
        batch_size: samples a batch.

    Attributes:
        done: samples that need no answer any more; a batch is left out when all of its samples are.
    """

    def __init__(self, sampler: Sampler, batch_size: int):
        self.sampler, self.batch_size, self.done = sampler, batch_size, frozenset()

    def __len__(self) -> int:
        return len(self.batches())

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches())

    def batches(self) -> list[list[int]]:
        """Those of this process."""
        numbers = range(len(self.sampler.dataset))
        batches = [list(numbers[i : i + self.batch_size]) for i in range(0, len(numbers), self.batch_size)]
        left = [batch for batch in batches if not self.done.issuperset(batch)]
        return left[self.sampler.rank :: self.sampler.world_size]


@LOOPS.register_module()
class EvaluationLoop(TestLoop):
    """Answers the test data, writes every prediction as it comes, and a result that says how it was made.

    In `<work_dir>/evaluation/<checkpoint>-<digest of what answers>-<of what judges>`: `predictions.jsonl`, a row
    for each sample in the order of the data, and `result.json`: metrics, number of samples, settings with checksums,
    command, versions, seconds.

    Args:
        runner: MMEngine's.
        dataloader: config; its sampler is replaced by WholeBatches.
        evaluator: config, or MMEngine's Evaluator.
        resume: keep the predictions of an evaluation of the same settings that was cut, or could not be judged; those
            of one with other metrics, where it has none.
        cut_at: words at which generated text is cut, e.g. ['Question', 'Answer', 'Short'] for a base model that goes on
            with a next question (as OpenFlamingo's evaluation does).
    """

    def __init__(self, runner: Runner, dataloader: dict, evaluator, resume: bool = False, cut_at: Sequence[str] = ()):
        sampler = dict(type="DefaultSampler", shuffle=False)
        loader = {**dataloader, "sampler": sampler, "batch_sampler": dict(type=WholeBatches)}
        super().__init__(runner, loader, evaluator)
        self.resume, self.cut_at = resume, tuple(cut_at)
        # Summing files of gigabytes is for one process.
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        # Models of other kinds need not generate.
        generation = getattr(model, "settings_in_force", dict)()
        told = [evaluation_settings(runner.cfg, runner._load_from, generation) if is_main_process() else None]
        broadcast_object_list(told)
        self.settings = told[0]
        template = self.settings["prompt_template"]
        if template and generation:
            ends = [generation["tokens"][str(i)] for i in generation["eos_token_id"]]
            check_ends(template, model.tokenizer.eos_token, ends)
        self.folder = Path(runner.work_dir) / "evaluation" / self._name()

    def _name(self) -> str:
        checkpoint = self.runner._load_from
        return f"{Path(checkpoint).stem if checkpoint else 'untuned'}-{'-'.join(digests(self.settings))}"

    def run(self) -> dict:
        """Answer what is left to answer; metrics of everything."""
        with locked(self.folder, ADVICE) if is_main_process() else nullcontext():
            return self._run()

    def _run(self) -> dict:
        start, predictions = time.perf_counter(), Predictions(self.folder, get_rank())
        self._prepare(predictions)
        self.runner.call_hook("before_test")
        self.runner.call_hook("before_test_epoch")
        self.runner.model.eval()
        numbers = self.dataloader.batch_sampler.batches()
        for step, batch in enumerate(self.dataloader):
            self.answer(step, batch, numbers[step], predictions)
        barrier()
        metrics = self._judge(predictions, time.perf_counter() - start)
        self.runner.call_hook("after_test_epoch", metrics=metrics)
        # MMEngine's LoggerHook shows the visualizer's backends the metrics of validation only.
        self.runner.visualizer.add_scalars(metrics)
        self.runner.call_hook("after_test")
        return metrics

    def _prepare(self, predictions: Predictions) -> None:
        """Checks that answers can be judged; removes or gathers what earlier runs left."""
        if is_main_process():
            check_questions(self.evaluator.metrics, questions_of(self.dataloader.dataset))
            if self.resume:
                if not predictions.read():
                    predictions.add(self._answered_before())
                predictions.gather()
            else:
                predictions.clear()
        barrier()
        done = frozenset(predictions.read())
        self.dataloader.batch_sampler.done = done
        barrier()
        if self.resume:
            print_log(f"{self.folder}: {len(done)} of {len(self.dataloader.dataset)} samples are answered", "current")

    def _answered_before(self) -> Iterable[dict]:
        """The predictions of an evaluation that differs in its metrics alone: of the one that got furthest."""
        same = self.folder.parent.glob(f"{self.folder.name.rpartition('-')[0]}-*")
        return max((Predictions(folder).read() for folder in sorted(same)), key=len, default={}).values()

    @torch.inference_mode()
    def answer(self, step: int, batch: dict, numbers: list[int], predictions: Predictions) -> None:
        """One batch, whose samples have these numbers."""
        self.runner.call_hook("before_test_iter", batch_idx=step, data_batch=batch)
        # What is sampled depends on the batch, not on who answers it, or when.
        seed_iteration(self.runner.seed, numbers[0], rank=0)
        rows = self.runner.model.test_step(batch)
        shorten(rows, self.cut_at)
        predictions.add({"index": number, **row} for number, row in zip(numbers, rows, strict=True))
        self.runner.call_hook("after_test_iter", batch_idx=step, data_batch=batch, outputs=rows)

    def _judge(self, predictions: Predictions, seconds: float) -> dict:
        """Metrics of all predictions, computed by the first process and told to the others."""
        size, told = len(self.dataloader.dataset), [None]
        if is_main_process():
            rows = predictions.finish(size)
            try:
                told = [self._evaluate(rows)]
            except Exception:
                text = "the answers are kept, but could not be judged; --resume judges them without asking again"
                print_log(f"{self.folder}: {text}", "current", logging.ERROR)
                raise
            made = {"settings": self.settings, **circumstances(), "processes": get_world_size()}
            result = {"metrics": told[0], "samples": size, **made, "seconds": round(seconds, 1)}
            write_json(result, self.folder / RESULT)
            print_log(f"written: {self.folder / RESULT}", "current")
        broadcast_object_list(told)
        return told[0]

    def _evaluate(self, rows: list[dict]) -> dict:
        metrics = {}
        for metric in self.evaluator.metrics:
            if hasattr(metric, "folder"):
                metric.folder = self.folder
            metric.process(None, rows)
            # Not metric.evaluate(), in which all processes take part: this one has everything.
            for name, value in metric.compute_metrics(metric.results).items():
                name = "/".join(filter(None, (metric.prefix, name)))
                if name in metrics:
                    raise ValueError(
                        f"two metrics of test_evaluator give {name!r}: set another `prefix` for one of them"
                    )
                metrics[name] = value
            metric.results.clear()
        return metrics


def shorten(rows: Sequence[dict], words: Sequence[str]) -> None:
    """Cut the generated predictions of some rows at the first of some words; those chosen by their scores stay."""
    for row in rows if words else ():
        if "scores" not in row:
            row["prediction"] = cut(row["prediction"], words)


def cut(text: str, words: Sequence[str]) -> str:
    """Text up to the first of some words, stripped."""
    return re.split("|".join(map(re.escape, words)), text, maxsplit=1)[0].strip()
