"""Hook that logs the samples dropped by training and the answers that were truncated."""

import logging

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmgpt.datasets.dropped import KINDS
from mmgpt.datasets.joint import mixed_datasets
from mmgpt.registry import HOOKS


@HOOKS.register_module()
class DroppedSamplesHook(Hook):
    """Logs at the end of each epoch how many samples each training dataset has dropped, in all processes together.

    Only the first process writes the log of a run: single samples that other processes drop do not appear there.
    """

    def after_train_epoch(self, runner: Runner) -> None:
        """Sum the counters of all processes and log those that are not zero."""
        datasets = mixed_datasets(runner.train_dataloader.dataset)
        for dropped in (dataset.dropped for dataset in datasets if hasattr(dataset, "dropped")):
            counts = torch.tensor([dropped.totals[kind] for kind in KINDS])
            all_reduce(counts)
            # Refused records are counted and logged when the file is read.
            texts = [
                f"{int(count)} {text}"
                for (kind, text), count in zip(KINDS.items(), counts, strict=True)
                if count and kind != "refused"
            ]
            if texts:
                text = f"dataset {dropped.name}: {', '.join(texts)} since the start of this run"
                print_log(text, "current", logging.WARNING)
