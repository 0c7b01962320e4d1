"""Hook that ends a run whose gradients are exactly zero in its first steps."""

import math

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmgpt.registry import HOOKS

from .nonfinite import gradient_norm, gradients

ADVICE = (
    "the model does not learn. Look at which parameters are trainable (the model summary before the first step), and "
    "whether the loss depends on them: lora.target_modules, `frozen`, the gates of the gated cross-attention blocks, "
    "the labels of the samples. default_hooks.zero_gradients=None turns this check off"
)


@HOOKS.register_module()
class ZeroGradientsHook(Hook):
    """Ends a run with a ValueError if the norm of its gradients is exactly zero from the first step on.

    The check stops at the first step whose norm is not zero, counted from where the run starts or resumes. Steps in
    which no trainable parameter has a gradient at all (text-only batches, where only parameters of the image path are
    trainable) do not end the run by their number alone: it ends when it has used all its data once, in `patience` steps
    at least. The run also ends at its last step, however few steps it had, unless it was resumed: the last steps of a
    resumed run say nothing about those before.

    Args:
        patience: number of steps with gradients that are all zero after which the run ends.
    """

    # It has to run before NonFiniteHook, which removes gradients that are not finite.
    priority = "VERY_HIGH"

    def __init__(self, patience: int = 10) -> None:
        if patience < 1:
            raise ValueError(f"ZeroGradientsHook: patience={patience} must be 1 or more")
        self.patience = patience
        # These are whether any gradient was not zero, the number of steps whose gradients were all zero, the number of
        # steps without any gradient, and the batch at which the run started.
        self.any_nonzero, self.zero_steps, self.without_gradient, self.first_batch = False, 0, 0, 0
        self.handle: torch.utils.hooks.RemovableHandle | None = None

    def before_train(self, runner: Runner) -> None:
        """Register a hook on the optimizer that looks at the gradients before each step."""
        self.any_nonzero, self.zero_steps, self.without_gradient, self.first_batch = False, 0, 0, runner.iter

        def check(*_: object) -> None:
            norm = gradient_norm(runner)
            finite = math.isfinite(norm)
            # A flag that is set in one process is set for all.
            flags = torch.tensor([finite and norm > 0, bool(gradients(runner)), not finite], dtype=torch.int)
            all_reduce(flags, "max")
            self.any_nonzero, any_gradients, nonfinite = map(bool, flags)
            self.zero_steps += any_gradients and not (self.any_nonzero or nonfinite)
            self.without_gradient += not (self.any_nonzero or any_gradients or nonfinite)

        self.handle = runner.optim_wrapper.optimizer.register_step_pre_hook(check)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Decide about the steps so far, equally in all processes.

        Raises:
            ValueError: the gradients were zero for too long.
        """
        if self.any_nonzero:
            self.handle.remove()
        if self.any_nonzero or not runner.optim_wrapper.should_update():
            return
        batches, steps = runner.iter + 1, self.zero_steps + self.without_gradient
        all_data_seen = batches - self.first_batch >= len(runner.train_dataloader) and steps >= self.patience
        at_end = self.first_batch == 0 and batches >= runner.max_iters
        if self.zero_steps >= self.patience or steps and (all_data_seen or at_end):
            reason = "all gradients were exactly zero" if self.zero_steps else "no trainable parameter had a gradient"
            raise ValueError(f"in the first {steps} steps of this run {reason}: {ADVICE}")

    def after_train(self, runner: Runner) -> None:
        """Remove the hook on the optimizer."""
        self.handle.remove()
