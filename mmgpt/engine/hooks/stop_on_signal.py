"""A signal ends a training after a checkpoint, in all its processes."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmgpt.cli.failures import Stopped
from mmgpt.engine.checkpoint import TrainableCheckpointHook
from mmgpt.registry import HOOKS

# What a user, a scheduler that takes the machine back, and Slurm's --signal=USR1@... send.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Saves and raises Stopped at the end of the optimizer step in which a process of the run got one of SIGNALS.

    A run that writes no checkpoints (`default_hooks.checkpoint` is None) ends there without one.
    That no gradients are pending then is why it waits for the step. A second SIGINT, a second or more after the first
    (one keypress may come twice), ends the run at once.
    """

    priority = "LOWEST"

    def __init__(self) -> None:
        self.got, self.since = 0, 0.0
        self.before: dict[int, Callable | int | None] = {}

    def before_train(self, runner: Runner) -> None:
        """Handle the signals, and keep them from the processes that load data."""
        if threading.current_thread() is threading.main_thread():
            self.before = {signum: signal.signal(signum, self._note) for signum in SIGNALS}
        loader = runner.train_dataloader
        if loader.num_workers:
            loader.worker_init_fn = _Shielded(loader.worker_init_fn)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Stop if any process is to, once the optimizer has stepped."""
        if not runner.optim_wrapper.should_update():
            return
        got = torch.tensor(self.got)
        all_reduce(got, "max")
        if got:
            checkpoint = next((hook for hook in runner.hooks if isinstance(hook, TrainableCheckpointHook)), None)
            what = "saving" if checkpoint else "ending, without a checkpoint (default_hooks.checkpoint is None),"
            runner.logger.warning(f"got {signal.Signals(int(got)).name}: {what} after {runner.iter + 1} batches")
            if checkpoint:
                checkpoint.save_now(runner)
            self.after_train(runner)
            runner.call_hook("after_run")
            raise Stopped(int(got), runner.iter + 1, saved=checkpoint is not None)

    def after_train(self, runner: Runner) -> None:
        """Leave the signals as they were."""
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
        self.before = {}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.got:
            self.got, self.since = signum, now
        elif signum == signal.SIGINT and now - self.since > 1:
            raise KeyboardInterrupt


class _Shielded:
    """A worker_init_fn of a data loader, called in a process that lives on while others send signals to the group.

    A launcher or a scheduler sends them to every process of a run: without its loaders it could not finish the step.
    """

    def __init__(self, init: Callable[[int], None] | None) -> None:
        self.init = init

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_wait_for_parent, args=(os.getppid(),), daemon=True).start()
        if self.init:
            self.init(worker)


def _wait_for_parent(parent: int) -> None:
    """End this process when its parent sends SIGTERM, as torch and multiprocessing do; only then."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
