"""Hook that logs samples and tokens per second, and the model FLOPS utilization."""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmgpt.engine.trainable import bare_model
from mmgpt.registry import HOOKS

from .gpu_peaks import peak_flops
from .model_summary import numel


def token_flops(model: nn.Module) -> int:
    """Operations that learning from a token takes at least: 4 for a parameter of the language model, 6 if trained.

    2 for its product in the forward pass, 2 for the gradient of its input, 2 for its own (Kaplan et al. 2020,
    arXiv:2001.08361, section 2.1). The table of embeddings is looked up, not multiplied. Attention between tokens and
    all that is done for images are left out.
    """
    language = [module for name, module in model.named_modules() if name.rpartition(".")[2] == "language"]
    embedding = language[0].get_input_embeddings().weight if language else None
    parameters = [each for each in (language[0] if language else model).parameters() if each is not embedding]
    return sum(numel(each) * (6 if each.requires_grad else 4) for each in parameters)


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
