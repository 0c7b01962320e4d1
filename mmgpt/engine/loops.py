"""Training loops."""

import random
from itertools import islice

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from mmgpt.datasets.joint import mixed_datasets
from mmgpt.datasets.mixture import streamed_samples
from mmgpt.registry import LOOPS

from .global_batch import set_totals


def seed_iteration(seed: int, iteration: int, rank: int) -> None:
    """Seed the random generators of Python, NumPy and torch as a function of (seed, iteration, rank).

    The random numbers of a training step then do not depend on those drawn before: a resumed run needs no stored
    generator state, and validation in between changes nothing. torch.manual_seed seeds all GPUs too.
    """
    state = np.random.SeedSequence((seed, iteration, rank)).generate_state(2)
    random.seed(int(state[0]))
    np.random.seed(state[0])
    torch.manual_seed(int(state[1]))


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """Epoch-based training loop with gradient accumulation, resumable exactly after any batch.

    1. An epoch starts at the batch where the run was stopped: the batches before it are skipped without being read, by
       ``batch_sampler.start`` (see JointBatchSampler).
    2. A step of the optimizer has `optim_wrapper.accumulative_counts` batches of each process, or those that are left
       of the epoch. They are read before the first of them is run, since its loss is divided by the number of label
       tokens of the whole step (see `set_totals`).
    3. Each batch is run by MMEngine's `run_iter`: forward and backward pass, and the optimizer's step if it is due.

    Raises:
        ValueError: when resuming within an epoch with a batch sampler that has no ``start``, or when a dataset is a
            stream and the batch sampler is no StreamBatchSampler.
    """

    def run(self) -> nn.Module:
        """Train from the first batch, or from the batch of a resumed checkpoint."""
        runner, wrapper, batch_sampler = self.runner, self.runner.optim_wrapper, self.dataloader.batch_sampler
        for samples in map(streamed_samples, mixed_datasets(self.dataloader.dataset)):
            if samples is not None:
                samples.check_split()
        # A checkpoint written at the last batch of an epoch holds the number of that epoch; the next is due.
        self._epoch = self._iter // len(self.dataloader)
        self.check_start(self._iter)
        if self._iter % wrapper._accumulative_counts:
            print_log("No gradient is lost: the checkpoint was written at the end of a step.", "current")
        runner.call_hook("before_train")
        while self._epoch < self._max_epochs and not self.stop_training:
            start = self._iter - self._epoch * len(self.dataloader)
            if hasattr(batch_sampler, "start"):
                batch_sampler.start = start
            # The random numbers of loading the first batch must not depend on the epoch before, which a resumed run
            # has not run.
            seed_iteration(runner.seed, self._iter, get_rank())
            runner.call_hook("before_train_epoch")
            runner.model.train()
            batches = enumerate(self.dataloader, start=start)
            while step := list(islice(batches, wrapper._accumulative_counts)):
                set_totals([batch for _, batch in step])
                # The wrapper counts the batches of this step alone, which gives the factor of the loss and the moment
                # to update. (It looks at the model for a warning only, which it gave when the run began.)
                wrapper.initialize_count_status(nn.Identity(), 0, len(step))
                for index, batch in step:
                    seed_iteration(runner.seed, self._iter, get_rank())
                    self.run_iter(index, batch)
            if start:
                batch_sampler.start = 0
            runner.call_hook("after_train_epoch")
            self._epoch += 1
            # Validation runs at the same epochs as in MMEngine's loop.
            self._decide_current_val_interval()
            due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
            if runner.val_loop is not None and self._epoch >= self.val_begin and due:
                runner.val_loop.run()
        runner.call_hook("after_train")
        return runner.model

    def check_start(self, batches: int) -> None:
        """Raise a ValueError if training cannot start after so many batches."""
        epoch, start = divmod(batches, len(self.dataloader))
        batch_sampler = self.dataloader.batch_sampler
        if start and not hasattr(batch_sampler, "start"):
            raise ValueError(
                f"cannot resume after {start} batches of epoch {epoch}: {type(batch_sampler).__name__} cannot "
                "skip batches; use a batch sampler with a `start`, such as JointBatchSampler"
            )
