"""Hook that logs the components of a model with their parameters and dtypes."""

import io
import math

from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table
from torch import nn

from mmgpt.engine.trainable import bare_model
from mmgpt.models.weights.names import component_of
from mmgpt.registry import HOOKS


def numel(parameter: nn.Parameter) -> int:
    """Number of weights; bitsandbytes packs two 4-bit weights into a byte, which counts as two here."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


def model_summary(model: nn.Module) -> Table:
    """A line for each part of a model, and one for all: its parameters, those trained and frozen, and their types."""

    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parts.setdefault(component_of(name), []).append(parameter)
    table = Table("part")
    for title in ("parameters", "trained", "frozen"):
        table.add_column(title, justify="right")
    table.add_column("dtype")
    for part, members in (*parts.items(), ("all", list(model.parameters()))):
        trained = sum(numel(each) for each in members if each.requires_grad)
        every = sum(map(numel, members))
        types = sorted({str(each.dtype).removeprefix("torch.") for each in members})
        table.add_row(part, *(f"{count:,}" for count in (every, trained, every - trained)), ", ".join(types))
    return table


@HOOKS.register_module()
class ModelSummaryHook(Hook):
    """Logs `model_summary` before the first step."""

    def before_train(self, runner: Runner) -> None:
        """Log it as text."""
        shown = Console(width=100, file=io.StringIO())
        shown.print(model_summary(bare_model(runner)))
        runner.logger.info(f"The parts of the model:\n{shown.file.getvalue()}")
