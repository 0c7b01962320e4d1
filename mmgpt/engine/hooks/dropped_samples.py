"""A line in the log about what training leaves out."""

import logging

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmgpt.datasets.dropped import KINDS
from mmgpt.datasets.joint import parts_of
from mmgpt.registry import HOOKS


@HOOKS.register_module()
class DroppedSamplesHook(Hook):
    """Logs at the end of each epoch what each training dataset lost since the start, in all processes together.

    Only the first process writes the log of a run, so that of what its others lose, single samples do not show there.
    """

    def after_train_epoch(self, runner: Runner) -> None:
        """Sum the counters and log those that are not zero."""
        parts = parts_of(runner.train_dataloader.dataset)
        for lost in (part.lost for part in parts if hasattr(part, "lost")):
            counts = torch.tensor([lost.totals[kind] for kind in KINDS])
            all_reduce(counts)
            # Broken records are counted where the file is read, and told there.
            found = {kind: int(count) for kind, count in zip(KINDS, counts, strict=True) if count and kind != "refused"}
            if found:
                said = ", ".join(f"{count} {KINDS[kind]}" for kind, count in found.items())
                print_log(f"dataset {lost.name}: {said} since the start of this run", "current", logging.WARNING)
