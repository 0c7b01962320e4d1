"""Losses of a small model on the GPU, in one process of a group and in low precision, beside those of the CPU."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmgpt.apis import build_model
from mmgpt.apis.precision import check_precision, for_serving
from mmgpt.engine.parallel.ddp import UnusedParamsDDP
from mmgpt.engine.parallel.fsdp import ShardedDataParallel
from mmgpt.models import flamingo_of

from .models import SMALL, config, packed_batch
from .parts import Figure, Setting
from .training import check

STEPS = 3
# Sums in another order change float32 losses by less than this share, also after some steps of training.
FLOAT32 = 1e-3
# The largest difference from float32's loss, as a share of it.
PRECISIONS = {"float32": FLOAT32, "bfloat16": 0.02, "int8": 0.05, "int4": 0.1}


class Reference:
    """A small model with the same weights each time that it is built, a batch for it, and its losses on the CPU."""

    def __init__(self, setting: Setting):
        # With the default eps, AdamW turns rounding errors of small gradients into whole steps.
        self.setting, self.cfg = setting, config(setting, SMALL, {"optim_wrapper.optimizer.eps": 1e-4})
        self.rows, self.length, self.samples = (2, 64, 2) if setting.tiny else (2, 512, 4)

    def model(self) -> nn.Module:
        """The model on the CPU, in training mode."""
        torch.manual_seed(0)
        return build_model(self.cfg, device="cpu").train()

    def batch(self, model: nn.Module) -> dict:
        """The batch, on the model's device."""
        return packed_batch(model, self.rows, self.length, self.samples, self.cfg.prepare_images.size)

    def train(self, model: nn.Module, batch: dict, wrapper: Mapping | None = None) -> dict[str, float]:
        """The losses of some steps of training by name.

        Args:
            model: in training mode on its device, also in a wrapper for several processes.
            wrapper: settings of the optimizer wrapper beside those of the config.
        """
        wrapper = build_optim_wrapper(model, {**self.cfg.optim_wrapper, **(wrapper or {})})
        return {f"loss {i}": model.train_step(batch, wrapper)["loss"].item() for i in range(STEPS)}


def processes(setting: Setting) -> Iterator[Figure]:
    """Losses of steps of training in a process group of one, with DDP and with FSDP2.

    Raises:
        ValueError: they are not those of the CPU without a group.
    """
    reference = Reference(setting)
    plain = reference.model()
    batch = reference.batch(plain)
    expected = reference.train(plain, batch)
    backend = "gloo" if setting.device == "cpu" else "nccl"
    wrappers: dict[str, Callable[[nn.Module], nn.Module]] = {
        "DDP": lambda model: UnusedParamsDDP(model.to(setting.device), device_ids=None, broadcast_buffers=False),
        "FSDP2": ShardedDataParallel,
    }
    if setting.device == "cuda":
        torch.cuda.set_device(0)
    with tempfile.TemporaryDirectory() as folder:
        store = torch.distributed.FileStore(str(Path(folder, "store")), 1)
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        for name, wrap in wrappers.items():
            losses = reference.train(wrap(reference.model()), batch)
            check(name, losses, expected, FLOAT32)
            yield losses_figure(f"{name}, {backend}", losses, FLOAT32)
        torch.distributed.destroy_process_group()


def precision(setting: Setting) -> Iterator[Figure]:
    """Losses of steps of training in each precision; where it is not possible, the reason.

    Raises:
        ValueError: they differ too much from those of float32 on the CPU, or do not fall.
    """
    reference = Reference(setting)
    plain = reference.model()
    batch = reference.batch(plain)
    expected = reference.train(plain, batch)
    for name, close in PRECISIONS.items():
        try:
            check_precision(name, setting.device)
        except ValueError as error:
            yield Figure(name, f"skipped: {error}")
            continue
        model = for_serving(reference.model(), name, merge=False, device=setting.device)
        for weight in model.parameters():
            if weight.requires_grad:  # LoRA stays float32 in training.
                weight.data = weight.data.float()
        losses = reference.train(model.train(), batch)
        check(name, losses, expected, close)
        check_fall(name, losses)
        yield losses_figure(name, losses, close)
    model, amp = reference.model().to(setting.device), dict(type="AmpOptimWrapper", dtype="bfloat16")
    if setting.device == "cpu":  # There, --amp means a frozen language model in bfloat16.
        amp = None
        for weight in flamingo_of(model).language.parameters():
            if not weight.requires_grad:
                weight.data = weight.data.bfloat16()
    losses = reference.train(model, batch, amp)
    check("--amp", losses, expected, PRECISIONS["bfloat16"])
    check_fall("--amp", losses)
    yield losses_figure("--amp", losses, PRECISIONS["bfloat16"])


def check_fall(what: str, losses: Mapping[str, float]) -> None:
    """Raises a ValueError unless the last loss is below the first: gradients that get lost leave it as it is."""
    first, *_, last = losses.values()
    if not last < first:
        raise ValueError(f"{what}: the loss does not fall in {len(losses)} steps, from {first:.6g} to {last:.6g}")


def losses_figure(name: str, losses: dict[str, float], close: float) -> Figure:
    """Figure of losses that have been checked."""
    text = ", ".join(f"{loss:.4f}" for loss in losses.values())
    return Figure(f"{name}: losses", text, "", f"those of a CPU to {100 * close:g} %", True)
