"""A run whose gradients are exactly zero is ended in its first steps."""

import math

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmgpt.registry import HOOKS

from .nonfinite import gradient_norm, gradients

ADVICE = (
    "nothing is learned. Look at what is trainable (the table of the model before the first step), and whether the "
    "loss depends on it: lora.target_modules, `frozen`, the gates of the gated blocks, the labels of the samples. "
    "default_hooks.zero_gradients=None turns this check off"
)


@HOOKS.register_module()
class ZeroGradientsHook(Hook):
    """Ends a run with a ValueError if the norm of its gradients is exactly zero from the first step on.

    Once a step since the start, or since a resumed run went on, has had another norm, nothing is looked at any more.
    Steps in which nothing trainable has a gradient at all (texts alone, where only what is for images is trained) are
    not yet a sign: they end the run when it has seen all its data once. So does the end of a run that was not resumed,
    however few its steps are; a resumed one may have only a few steps left, which say nothing about those before.

    Args:
        patience: so many steps with gradients that are all zero end the run.
    """

    # Before NonFiniteHook takes away gradients that are not finite.
    priority = "VERY_HIGH"

    def __init__(self, patience: int = 10) -> None:
        if patience < 1:
            raise ValueError(f"ZeroGradientsHook: patience={patience} must be 1 or more")
        self.patience = patience
        self.learns, self.zero, self.unreached, self.first = False, 0, 0, 0
        self.handle: torch.utils.hooks.RemovableHandle | None = None

    def before_train(self, runner: Runner) -> None:
        """Watch the optimizer's steps, from the place at which this run starts or goes on."""
        self.learns, self.zero, self.unreached, self.first = False, 0, 0, runner.iter
        self.handle = runner.optim_wrapper.optimizer.register_step_pre_hook(lambda *_: self._look(runner))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Judge the steps so far, in all processes alike.

        Raises:
            ValueError: nothing is learned.
        """
        if self.learns:
            self.handle.remove()
        if self.learns or not runner.optim_wrapper.should_update():
            return
        done, steps = runner.iter + 1, self.zero + self.unreached
        passed = done - self.first >= len(runner.train_dataloader) and steps >= self.patience
        over = self.first == 0 and done >= runner.max_iters
        if self.zero >= self.patience or steps and (passed or over):
            what = "all gradients were exactly zero" if self.zero else "nothing trainable had a gradient"
            raise ValueError(f"in the first {steps} steps of this run {what}: {ADVICE}")

    def after_train(self, runner: Runner) -> None:
        """Watch no longer."""
        self.handle.remove()

    def _look(self, runner: Runner) -> None:
        norm = gradient_norm(runner)
        finite = math.isfinite(norm)
        # A sign that is seen in one process holds for all.
        seen = torch.tensor([finite and norm > 0, bool(gradients(runner)), not finite], dtype=torch.int)
        all_reduce(seen, "max")
        self.learns, reached, broken = map(bool, seen)
        self.zero += reached and not (self.learns or broken)
        self.unreached += not (self.learns or reached or broken)
