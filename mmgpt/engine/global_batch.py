"""The global batch: all that one step of the optimizer learns from, in all processes together."""

from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import RuntimeInfoHook
from mmengine.runner import Runner

from mmgpt.datasets.collate import count_label_tokens
from mmgpt.registry import HOOKS


def set_totals(batches: Sequence[object]) -> None:
    """Tell each batch of a step, in all processes, by what the losses of its sources are divided.

    ``batch["totals"]`` becomes {source: float tensor ()}: the learned tokens of that source in the whole global batch,
    divided by the number of batches there (those of the step times processes). A batch's loss is the sum over its
    tokens divided by it. The mean of these over batches and processes, which is what MMEngine and DDP make of their
    gradients, is the mean over all learned tokens, however they are spread. A source without any learned token is left
    out. Batches of other data than conversations stay as they are.
    """

    if not all(isinstance(batch, dict) and {"labels", "sources"} <= batch.keys() for batch in batches):
        return
    counts = [count_label_tokens(batch) for batch in batches]
    sums = torch.tensor([sum(count[source] for count in counts) for source in counts[0]])
    all_reduce(sums)
    parts = len(batches) * get_world_size()
    totals = {source: torch.tensor(int(count) / parts) for source, count in zip(counts[0], sums, strict=True) if count}
    for batch in batches:
        batch["totals"] = totals


@HOOKS.register_module()
class StepInfoHook(RuntimeInfoHook):
    """MMEngine's RuntimeInfoHook, but what the model returns is logged by whole steps: the mean of the global batch.

    It is written when the step is done, once for each of its batches, since the windows of the log count batches.
    """

    def __init__(self) -> None:
        self.parts: list[dict] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        """Write the means over the batches of all processes, when the last of the step was run."""
        self.parts.append(outputs)
        if not runner.optim_wrapper.should_update():
            return
        parts, self.parts = self.parts, []
        means = torch.stack([torch.stack([part[name].detach() for part in parts]).mean() for name in parts[0]])
        all_reduce(means, "mean")
        for _ in parts:
            super().after_train_iter(runner, batch_idx, data_batch, dict(zip(parts[0], means, strict=True)))
