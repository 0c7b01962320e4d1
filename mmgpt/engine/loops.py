"""Training loops."""

import random
from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from mmgpt.registry import LOOPS

from .global_batch import set_totals


def seed_iteration(seed: int, iteration: int, rank: int) -> None:
    """Set the random generators of Python, NumPy and torch to what (seed, iteration, rank) determine.

    With it, what a training step draws does not depend on what was drawn before: a resumed run needs no stored
    generator state, and validation in between changes nothing. torch.manual_seed sets those of all GPUs too.
    """
    state = np.random.SeedSequence((seed, iteration, rank)).generate_state(2)
    random.seed(int(state[0]))
    np.random.seed(state[0])
    torch.manual_seed(int(state[1]))


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """An epoch-based training loop in steps of several batches, that can be resumed after any step as if never stopped.

    A step of the optimizer has `optim_wrapper.accumulative_counts` batches of each process, or those that are left of
    the epoch. They are read before the first of them is run, since each is told how much the step learns in all (see
    `set_totals`).

    The place is the number of batches done. The batches of the current epoch that are done already are skipped
    without being read, by ``batch_sampler.start`` (see JointBatchSampler).

    Raises:
        ValueError: when resuming within an epoch with a batch sampler that has no ``start``.
    """

    def run(self) -> nn.Module:
        """Train, from the place that a resumed checkpoint has set."""
        # A checkpoint written at the last batch of an epoch says (epoch, all batches done): that is the next epoch.
        self._epoch = self._iter // len(self.dataloader)
        self.check_place(self._iter)
        if self._iter % self.runner.optim_wrapper._accumulative_counts:
            print_log("No gradient is lost: the checkpoint was written at the end of a step.", "current")
        return super().run()

    def check_place(self, done: int) -> None:
        """Raise a ValueError if training cannot go on after so many batches."""
        epoch, start = divmod(done, len(self.dataloader))
        batch_sampler = self.dataloader.batch_sampler
        if start and not hasattr(batch_sampler, "start"):
            raise ValueError(
                f"cannot resume after {start} batches of epoch {epoch}: {type(batch_sampler).__name__} cannot "
                "skip batches; use a batch sampler with a `start`, such as JointBatchSampler"
            )

    def run_epoch(self) -> None:
        """Train one epoch, or what is left of it."""
        start = self._iter - self._epoch * len(self.dataloader)
        batch_sampler = self.dataloader.batch_sampler
        if hasattr(batch_sampler, "start"):
            batch_sampler.start = start
        # What loading the first batch draws is not left over from before, be it an epoch or the start of a resumed run.
        seed_iteration(self.runner.seed, self._iter, get_rank())
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        batches = enumerate(self.dataloader, start=start)
        while step := list(islice(batches, self.runner.optim_wrapper._accumulative_counts)):
            self.run_step(step)
        if start:
            batch_sampler.start = 0
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def run_step(self, batches: Sequence[tuple[int, dict]]) -> None:
        """Train one step of the optimizer on some (place in the epoch, batch)."""
        set_totals([batch for _, batch in batches])
        # A count of its own for each step, of which the optimizer wrapper makes the factor of the loss and the moment
        # to update. (It looks at the model for a warning only, which it gave when the run began.)
        self.runner.optim_wrapper.initialize_count_status(nn.Identity(), 0, len(batches))
        for index, batch in batches:
            seed_iteration(self.runner.seed, self._iter, get_rank())
            self.run_iter(index, batch)
