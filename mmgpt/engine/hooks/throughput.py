"""Hook that logs samples and tokens per second, and the model FLOPS utilization."""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmgpt.engine.gpu_peak_flops import peak_flops
from mmgpt.engine.trainable import unwrap_model
from mmgpt.registry import HOOKS

from .model_summary import numel


def token_flops(model: nn.Module) -> int:
    """Lower bound of the FLOPs of training on a token: 4 for a parameter of the language model, 6 if it is trainable.

    These are 2 for its product in the forward pass, 2 for the gradient of its input, and 2 for its own gradient (Kaplan
    et al. 2020, arXiv:2001.08361, section 2.1). The embedding table is looked up, not multiplied. Attention between
    tokens and everything computed for images are left out.
    """
    language = [module for name, module in model.named_modules() if name.rpartition(".")[2] == "language"]
    embedding = language[0].get_input_embeddings().weight if language else None
    parameters = (language[0] if language else model).parameters()
    parameters = [parameter for parameter in parameters if parameter is not embedding]
    return sum(numel(parameter) * (6 if parameter.requires_grad else 4) for parameter in parameters)


class Work(NamedTuple):
    """Samples and tokens of one batch or several, and the seconds that training on them took."""

    samples: int
    tokens: int
    seconds: float


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Logs samples and tokens per second over the window of the log, and the model FLOPS utilization (`mfu`).

    Tokens do not include padding; all processes are taken to be as fast as this one. `mfu` is `token_flops` times
    tokens per second over `peak_flops`, for GPUs whose peak is in the table.
    """

    def before_train(self, runner: Runner) -> None:
        """Start an empty window."""
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        self.recent: deque[Work] = deque(maxlen=runner.log_processor.window_size)
        self.peak = peak_flops(device)
        self.flops = token_flops(unwrap_model(runner))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Log the means. The seconds come from MMEngine's timer, which runs before, unless it is turned off."""
        has_time = "train/time" in runner.message_hub.log_scalars
        if not has_time or not isinstance(data_batch, Mapping) or "attention_mask" not in data_batch:
            return
        seconds = runner.message_hub.get_scalar("train/time").current()
        self.recent.append(Work(len(data_batch["sources"]), int(data_batch["attention_mask"].sum()), seconds))
        total = Work(*map(sum, zip(*self.recent, strict=True)))
        rates = {"samples_per_s": total.samples / total.seconds, "tokens_per_s": total.tokens / total.seconds}
        for name, rate in rates.items():
            runner.message_hub.update_scalar(f"train/{name}", get_world_size() * rate)
        if self.peak:
            runner.message_hub.update_scalar("train/mfu", rates["tokens_per_s"] * self.flops / self.peak)
