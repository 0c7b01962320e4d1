"""Hook that skips optimizer steps whose loss or gradients are NaN or infinite."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmgpt.engine.trainable import unwrap_model
from mmgpt.registry import HOOKS
from mmgpt.utils.errors import SampleLocation


class Batch(NamedTuple):
    """One batch of an optimizer step: its losses by name, and the `metas` of its samples."""

    losses: dict[str, Tensor]
    metas: list[dict]


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Skips an optimizer step if a loss of its batches, or the norm of its gradients, is not finite in any process.

    Weights and optimizer states stay as they are in all processes; the log names the losses and the samples. The
    backward pass is run all the same, since the other processes wait for its gradients. Where gradients are clipped by
    norm, the norm is the one computed for it. Steps that a gradient scaler skips by itself are counted too.

    Args:
        patience: number of steps in a row that are skipped; one more ends the run with a ValueError.
    """

    priority = "HIGH"

    def __init__(self, patience: int = 10) -> None:
        self.patience = patience
        self.batches: list[Batch] = []  # those of the current step
        # With gradients that are not finite, a gradient scaler does not call the optimizer, and these values stay.
        self.norm, self.stepped = math.inf, False
        self.skipped_in_a_row = 0
        self.handles: list = []

    def before_train(self, runner: Runner) -> None:
        """Register a hook on the model, which records the losses, and one on the optimizer, which skips steps."""

        def record(model: nn.Module, arguments: tuple, inputs: Mapping, losses: object) -> None:
            if model.training and isinstance(losses, dict):
                tensors = {name: value.detach() for name, value in losses.items() if isinstance(value, Tensor)}
                self.batches.append(Batch(tensors, inputs.get("metas") or []))

        def check(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
            self.norm = gradient_norm(runner)
            losses = torch.stack([value.float().sum() for batch in self.batches for value in batch.losses.values()])
            nonfinite = torch.tensor(int(not (math.isfinite(self.norm) and losses.sum().isfinite())))
            all_reduce(nonfinite, "max")
            self.stepped = not nonfinite
            if nonfinite:
                # The optimizer ignores parameters without a gradient.
                optimizer.zero_grad(set_to_none=True)

        self.handles = [
            unwrap_model(runner).register_forward_hook(record, with_kwargs=True),
            runner.optim_wrapper.optimizer.register_step_pre_hook(check),
        ]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Log a step that was skipped, and forget the batches of a step that is over.

        Raises:
            ValueError: more than `patience` steps in a row were skipped.
        """
        if not runner.optim_wrapper.should_update():
            return
        self.skipped_in_a_row = 0 if self.stepped else self.skipped_in_a_row + 1
        if not self.stepped:
            # Each process has its own batches, so the losses of all processes are gathered.
            losses = [
                (name, float(value.sum()), [str(SampleLocation.of(meta)) for meta in batch.metas])
                for batch in self.batches
                for name, value in batch.losses.items()
            ]
            losses = [loss for process in all_gather_object(losses) for loss in process]
            nonfinite = [loss for loss in losses if not math.isfinite(loss[1])]
            samples = dict.fromkeys(sample for *_, samples in nonfinite or losses for sample in samples)
            values = {name: value for name, value, _ in nonfinite} or {"the norm of the gradients": self.norm}
            reason = ", ".join(f"{name} is {value}" for name, value in values.items())
            message = f"the step after {runner.iter + 1} batches is skipped, {self.skipped_in_a_row} in a row: {reason}"
            message += f"; samples: {'; '.join(samples) or 'without names'}"
            runner.logger.warning(message)
            if self.skipped_in_a_row > self.patience:
                raise ValueError(
                    f"{message}\nStopped after more than patience={self.patience} of NonFiniteHook; look at the "
                    "samples, lower the learning rate (lr), or train in bfloat16 instead of float16"
                )
        self.batches, self.norm, self.stepped = [], math.inf, False

    def after_train(self, runner: Runner) -> None:
        """Remove the hooks on model and optimizer."""
        for handle in self.handles:
            handle.remove()


def gradients(runner: Runner) -> list[Tensor]:
    """The gradients that the optimizer is about to use."""
    parameters = (parameter for group in runner.optim_wrapper.param_groups for parameter in group["params"])
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def gradient_norm(runner: Runner) -> float:
    """The norm of all gradients before clipping by norm, equal in all processes; 0 where there are none.

    Where gradients were clipped by norm, the norm computed for it is returned, without another wait for the GPU.
    """
    wrapper, grads = runner.optim_wrapper, gradients(runner)
    if grads and wrapper.clip_grad_kwargs and wrapper.grad_name == "grad_norm":
        return float(wrapper.message_hub.get_scalar("train/grad_norm").current())
    return float(torch.nn.utils.get_total_norm(grads))
