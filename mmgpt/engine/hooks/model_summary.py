"""What a training run shows of its model and its speed."""

import io
import math
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table
from torch import nn

from mmgpt.engine.trainable import bare_model
from mmgpt.registry import HOOKS

from .gpu_peaks import peak_flops


def _numel(parameter: nn.Parameter) -> int:
    """Of a weight in 4 bits, which bitsandbytes keeps two to a byte, the number that it stands for."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


def parts_table(model: nn.Module) -> Table:
    """A line for each part of a model, and one for all: its parameters, those trained and frozen, and their types."""
    from mmgpt.models.weights.names import part_of  # here: it brings transformers

    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parts.setdefault(part_of(name), []).append(parameter)
    table = Table("part")
    for title in ("parameters", "trained", "frozen"):
        table.add_column(title, justify="right")
    table.add_column("dtype")
    for part, members in (*parts.items(), ("all", list(model.parameters()))):
        trained = sum(_numel(each) for each in members if each.requires_grad)
        every = sum(map(_numel, members))
        types = sorted({str(each.dtype).removeprefix("torch.") for each in members})
        table.add_row(part, *(f"{count:,}" for count in (every, trained, every - trained)), ", ".join(types))
    return table


@HOOKS.register_module()
class PartsTableHook(Hook):
    """Logs `parts_table` before the first step."""

    def before_train(self, runner: Runner) -> None:
        """Log it as text."""
        shown = Console(width=100, file=io.StringIO())
        shown.print(parts_table(bare_model(runner)))
        runner.logger.info(f"The parts of the model:\n{shown.file.getvalue()}")


def token_flops(model: nn.Module) -> int:
    """Operations that learning from a token takes at least: 4 for a parameter of the language model, 6 if trained.

    2 for its product in the forward pass, 2 for the gradient of its input, 2 for its own (Kaplan et al. 2020,
    arXiv:2001.08361, section 2.1). The table of embeddings is looked up, not multiplied. Attention between tokens and
    all that is done for images are left out.
    """
    language = [module for name, module in model.named_modules() if name.rpartition(".")[2] == "language"]
    embedding = language[0].get_input_embeddings().weight if language else None
    parameters = [each for each in (language[0] if language else model).parameters() if each is not embedding]
    return sum(_numel(each) * (6 if each.requires_grad else 4) for each in parameters)


class Work(NamedTuple):
    """What learning from a batch, or from several, took."""

    samples: int
    tokens: int
    seconds: float


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Logs samples and tokens a second over the window of the log, and how much of the GPUs' peak they are.

    Of the words, padding left out; the other processes are taken to do as much as this one. The use, `mfu`, is
    `token_flops` times tokens a second over `peak_flops`, where the peak is known.
    """

    def before_train(self, runner: Runner) -> None:
        """Begin to count."""
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        self.recent: deque[Work] = deque(maxlen=runner.log_processor.window_size)
        self.peak = peak_flops(device)
        self.flops = token_flops(bare_model(runner))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Put the means into the log; MMEngine's timer, which goes before, has the seconds, unless it is turned off."""
        timed = "train/time" in runner.message_hub.log_scalars
        if not timed or not isinstance(data_batch, Mapping) or "attention_mask" not in data_batch:
            return
        seconds = runner.message_hub.get_scalar("train/time").current()
        self.recent.append(Work(len(data_batch["sources"]), int(data_batch["attention_mask"].sum()), seconds))
        done = Work(*map(sum, zip(*self.recent, strict=True)))
        rates = {"samples_per_s": done.samples / done.seconds, "tokens_per_s": done.tokens / done.seconds}
        for name, rate in rates.items():
            runner.message_hub.update_scalar(f"train/{name}", get_world_size() * rate)
        if self.peak:
            runner.message_hub.update_scalar("train/mfu", rates["tokens_per_s"] * self.flops / self.peak)
