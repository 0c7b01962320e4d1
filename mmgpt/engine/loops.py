"""Training loops."""

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.runner import EpochBasedTrainLoop

from mmgpt.registry import LOOPS


def seed_iteration(seed: int, iteration: int, rank: int) -> None:
    """Set the random generators of Python, NumPy and torch to what (seed, iteration, rank) determine.

    With it, what a training step draws does not depend on what was drawn before: a resumed run needs no stored
    generator state, and validation in between changes nothing.
    """
    state = np.random.SeedSequence((seed, iteration, rank)).generate_state(2)
    random.seed(int(state[0]))
    np.random.seed(state[0])
    torch.manual_seed(int(state[1]))


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """An epoch-based training loop that can be resumed after any batch and then goes on as if never stopped.

    The place is the number of batches done. The batches of the current epoch that are done already are skipped
    without being read, by ``batch_sampler.start`` (see JointBatchSampler).

    Raises:
        ValueError: when resuming within an epoch with a batch sampler that has no ``start``.
    """

    def run(self) -> torch.nn.Module:
        """Train, from the place that a resumed checkpoint has set."""
        # A checkpoint written at the last batch of an epoch says (epoch, all batches done): that is the next epoch.
        self._epoch = self._iter // len(self.dataloader)
        return super().run()

    def run_epoch(self) -> None:
        """Train one epoch, or what is left of it."""
        start = self._iter - self._epoch * len(self.dataloader)
        batch_sampler = self.dataloader.batch_sampler
        if hasattr(batch_sampler, "start"):
            batch_sampler.start = start
        elif start:
            raise ValueError(
                f"cannot resume after {start} batches of epoch {self._epoch}: {type(batch_sampler).__name__} cannot "
                "skip batches; use a batch sampler with a `start`, such as JointBatchSampler"
            )
        # What loading the first batch draws is not left over from before, be it an epoch or the start of a resumed run.
        seed_iteration(self.runner.seed, self._iter, get_rank())
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for index, batch in enumerate(self.dataloader, start=start):
            seed_iteration(self.runner.seed, self._iter, get_rank())
            self.run_iter(index, batch)
        if start:
            batch_sampler.start = 0
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1
