"""Steps whose loss or gradients are NaN or infinite are left out."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmgpt.engine.trainable import bare_model
from mmgpt.registry import HOOKS
from mmgpt.utils.errors import SampleLocation


class Seen(NamedTuple):
    """One batch of an optimizer step: its losses by name, and the `metas` of its samples."""

    losses: dict[str, Tensor]
    metas: list[dict]


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Skips an optimizer step if a loss of its batches, or the norm of its gradients, is not finite in any process.

    Weights and optimizer stay as they are, in all processes alike; the log names the losses and the samples. Backward
    is run all the same: the other processes wait for its gradients. The norm is the one that clipping computes, where
    there is clipping by norm. Steps that a gradient scaler leaves out by itself are counted too.

    Args:
        patience: so many steps in a row are skipped; one more ends the run with a ValueError.
    """

    priority = "HIGH"

    def __init__(self, patience: int = 10) -> None:
        self.patience = patience
        self.seen: list[Seen] = []
        # A gradient scaler does not let the optimizer step at gradients that are not finite: then nothing is known.
        self.norm, self.stepped, self.in_a_row = math.inf, False, 0
        self.handles: list = []

    def before_train(self, runner: Runner) -> None:
        """Watch the model's losses, and the optimizer's steps."""

        def look(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
            self.stepped = self._is_fine(runner)
            if not self.stepped:
                # The optimizer leaves out parameters without a gradient.
                optimizer.zero_grad(set_to_none=True)

        self.handles = [
            bare_model(runner).register_forward_hook(self._note, with_kwargs=True),
            runner.optim_wrapper.optimizer.register_step_pre_hook(look),
        ]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Tell of a step that was skipped; forget the batches of one that is over.

        Raises:
            ValueError: more than `patience` steps in a row were skipped.
        """
        if not runner.optim_wrapper.should_update():
            return
        self.in_a_row = 0 if self.stepped else self.in_a_row + 1
        if not self.stepped:
            said = f"the step after {runner.iter + 1} batches is skipped, {self.in_a_row} in a row: {self._reason()}"
            runner.logger.warning(said)
            if self.in_a_row > self.patience:
                raise ValueError(
                    f"{said}\nStopped after more than patience={self.patience} of NonFiniteHook; look at the samples, "
                    "lower the learning rate (lr), or train in bfloat16 instead of float16"
                )
        self.seen, self.norm, self.stepped = [], math.inf, False

    def after_train(self, runner: Runner) -> None:
        """Watch no longer."""
        for handle in self.handles:
            handle.remove()

    def _note(self, model: nn.Module, arguments: tuple, inputs: Mapping, losses: object) -> None:
        if model.training and isinstance(losses, dict):
            self.seen.append(
                Seen({k: v.detach() for k, v in losses.items() if isinstance(v, Tensor)}, inputs.get("metas") or [])
            )

    def _is_fine(self, runner: Runner) -> bool:
        self.norm = gradient_norm(runner)
        losses = torch.stack([value.float().sum() for seen in self.seen for value in seen.losses.values()])
        bad = torch.tensor(int(not (math.isfinite(self.norm) and losses.sum().isfinite())))
        all_reduce(bad, "max")
        return not bad

    def _reason(self) -> str:
        """What was not finite and in which samples, of all processes: each knows its own batches."""
        # Here, not above: the engine does without the data.

        found = [
            (name, float(value.sum()), [str(SampleLocation.of(meta)) for meta in seen.metas])
            for seen in self.seen
            for name, value in seen.losses.items()
        ]
        everywhere = [one for some in all_gather_object(found) for one in some]
        bad = [one for one in everywhere if not math.isfinite(one[1])]
        places = dict.fromkeys(place for *_, some in bad or everywhere for place in some)
        named = {name: value for name, value, _ in bad} or {"the norm of the gradients": self.norm}
        what = ", ".join(f"{name} is {value}" for name, value in named.items())
        return f"{what}; samples: {'; '.join(places) or 'without names'}"


def gradients(runner: Runner) -> list[Tensor]:
    """The gradients that the optimizer is about to use."""
    parameters = (each for group in runner.optim_wrapper.param_groups for each in group["params"])
    return [each.grad for each in parameters if each.grad is not None]


def gradient_norm(runner: Runner) -> float:
    """The norm of all gradients before clipping by norm, the same in all processes; 0 where there are none.

    Where they were clipped by norm it is the one found then, which has been waited for.
    """
    wrapper, grads = runner.optim_wrapper, gradients(runner)
    if grads and wrapper.clip_grad_kwargs and wrapper.grad_name == "grad_norm":
        return float(wrapper.message_hub.get_scalar("train/grad_norm").current())
    return float(torch.nn.utils.get_total_norm(grads))
