"""Hook that ends a training at a signal, after a checkpoint, in all processes."""

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
from mmgpt.registry import HOOKS

from .checkpoint import TrainableCheckpointHook

# These are sent by Ctrl-C, by a scheduler that takes the machine back, and by Slurm's --signal=USR1@...
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Saves a checkpoint and raises Stopped at the end of the optimizer step in which a process got one of SIGNALS.

    At the end of a step no gradients are accumulated, which a checkpoint does not hold. A run that writes no
    checkpoints (`default_hooks.checkpoint` is None) ends there without one. A second SIGINT, a second or more after the
    first (one keypress may arrive twice), ends the run at once.
    """

    priority = "LOWEST"

    def __init__(self) -> None:
        self.signum, self.received_at = 0, 0.0
        self.previous_handlers: dict[int, Callable | int | None] = {}

    def before_train(self, runner: Runner) -> None:
        """Handle the signals, and shield the processes that load data from them."""
        if threading.current_thread() is threading.main_thread():
            self.previous_handlers = {signum: signal.signal(signum, self._receive) for signum in SIGNALS}
        loader = runner.train_dataloader
        if loader.num_workers:
            loader.worker_init_fn = _SignalShield(loader.worker_init_fn)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Stop after an optimizer step if any process has received a signal."""
        if not runner.optim_wrapper.should_update():
            return
        signum = torch.tensor(self.signum)
        all_reduce(signum, "max")
        if signum:
            checkpoint = next((hook for hook in runner.hooks if isinstance(hook, TrainableCheckpointHook)), None)
            action = "saving" if checkpoint else "ending, without a checkpoint (default_hooks.checkpoint is None),"
            runner.logger.warning(f"got {signal.Signals(int(signum)).name}: {action} after {runner.iter + 1} batches")
            if checkpoint:
                checkpoint.save_now(runner)
            self.after_train(runner)
            runner.call_hook("after_run")
            raise Stopped(int(signum), runner.iter + 1, saved=checkpoint is not None)

    def after_train(self, runner: Runner) -> None:
        """Restore the previous signal handlers."""
        for signum, handler in self.previous_handlers.items():
            signal.signal(signum, handler)
        self.previous_handlers = {}

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler: remembers the first signal, and ends the run at a second SIGINT."""
        now = time.monotonic()
        if not self.signum:
            self.signum, self.received_at = signum, now
        elif signum == signal.SIGINT and now - self.received_at > 1:
            raise KeyboardInterrupt


class _SignalShield:
    """worker_init_fn of a data loader that shields the worker process from the signals that a run handles.

    A launcher or a scheduler sends signals to every process of a run, which needs its workers to finish the step.
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
    """End this process when SIGTERM comes from its parent, which is how torch and multiprocessing end workers."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
