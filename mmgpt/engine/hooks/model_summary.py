"""Hook that logs the components of a model with their parameters and dtypes."""

import io
import math

from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table
from torch import nn

from mmgpt.engine.trainable import unwrap_model
from mmgpt.models.weights.names import component_of
from mmgpt.registry import HOOKS


def numel(parameter: nn.Parameter) -> int:
    """Number of weights; bitsandbytes packs two 4-bit weights into a byte, which counts as two here."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


def model_summary(model: nn.Module) -> Table:
    """A row for each component of a model, and one for all: parameters, trainable and frozen ones, and dtypes."""
    components: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        components.setdefault(component_of(name), []).append(parameter)
    table = Table("component")
    for title in ("parameters", "trainable", "frozen"):
        table.add_column(title, justify="right")
    table.add_column("dtype")
    for component, parameters in (*components.items(), ("all", list(model.parameters()))):
        trainable = sum(numel(parameter) for parameter in parameters if parameter.requires_grad)
        total = sum(map(numel, parameters))
        dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters})
        counts = (f"{count:,}" for count in (total, trainable, total - trainable))
        table.add_row(component, *counts, ", ".join(dtypes))
    return table


@HOOKS.register_module()
class ModelSummaryHook(Hook):
    """Logs `model_summary` before the first step."""

    def before_train(self, runner: Runner) -> None:
        """Log the summary as text."""
        console = Console(width=100, file=io.StringIO())
        console.print(model_summary(unwrap_model(runner)))
        runner.logger.info(f"Components of the model:\n{console.file.getvalue()}")
