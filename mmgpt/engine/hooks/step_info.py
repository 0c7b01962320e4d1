"""Hook that logs the learning rates, and the losses of whole optimizer steps."""

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import RuntimeInfoHook
from mmengine.runner import Runner

from mmgpt.registry import HOOKS


@HOOKS.register_module()
class StepInfoHook(RuntimeInfoHook):
    """MMEngine's RuntimeInfoHook, except that it logs the outputs of whole steps: their mean over the global batch.

    The mean is written when the step is done, once for each of its batches, since the windows of the log count batches.
    Where the optimizer's groups have different learning rates, it also logs that of each named group as `NAME.lr`.
    """

    def __init__(self) -> None:
        self.outputs: list[dict] = []  # one for each batch of the current step

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Write the learning rates of the batch."""
        super().before_train_iter(runner, batch_idx, data_batch)
        groups = runner.optim_wrapper.param_groups
        if len({group["lr"] for group in groups}) > 1:
            for group in groups:
                if "name" in group:
                    runner.message_hub.update_scalar(f"train/{group['name']}.lr", group["lr"])

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        """Write the means over the batches of all processes after the last batch of a step."""
        self.outputs.append(outputs)
        if not runner.optim_wrapper.should_update():
            return
        step, self.outputs = self.outputs, []
        means = torch.stack([torch.stack([batch[name].detach() for batch in step]).mean() for name in step[0]])
        all_reduce(means, "mean")
        for _ in step:
            super().after_train_iter(runner, batch_idx, data_batch, dict(zip(step[0], means, strict=True)))
