"""Checkpoints that hold what was trained, are loaded without running code, and are never half written."""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmgpt.registry import HOOKS

LATEST = "latest.pth"


def trained_names(model: nn.Module) -> set[str]:
    """Names in ``model.state_dict()`` of what training changes: the parameters that require gradients, and the
    persistent buffers of the modules that own such a parameter (running statistics)."""
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for prefix, module in model.named_modules():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            buffers = (name for name, _ in module.named_buffers(recurse=False))
            kept = (name for name in buffers if name not in module._non_persistent_buffers_set)
            names |= {f"{prefix}.{name}" if prefix else name for name in kept}
    return names


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The part of ``model.state_dict()`` that a checkpoint holds, see `trained_names`."""
    names = trained_names(model)
    return {name: value for name, value in model.state_dict().items() if name in names}


def read_checkpoint(path: str | os.PathLike, map_location: str = "cpu") -> dict:
    """The content of a checkpoint file, read without running any code that the file may hold.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, or holds objects other than tensors and plain data.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {str(path)!r}")
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint of tensors and plain data: {error}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} holds no 'state_dict': it is no checkpoint of tools/train.py")
    return checkpoint


def check_state(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Raise a ValueError naming ``source`` unless ``state`` is all that `trained_names` lists, in its shapes."""
    shapes = {name: value.shape for name, value in trained_state(model).items()}
    shared = shapes.keys() & state.keys()
    problems = {
        "are missing in it": sorted(shapes.keys() - state.keys()),
        "are in it but not trained in this model": sorted(state.keys() - shapes.keys()),
        "have another shape": sorted(
            f"{name} {tuple(state[name].shape)} instead of {tuple(shapes[name])}"
            for name in shared
            if state[name].shape != shapes[name]
        ),
    }
    lines = [
        f"  {len(names)} {what}: {', '.join(names[:3])}{', ...' * (len(names) > 3)}"
        for what, names in problems.items()
        if names
    ]
    if lines:
        raise ValueError(f"the checkpoint {source} does not belong to this config:\n" + "\n".join(lines))


def load_trained(model: nn.Module, path: str | os.PathLike) -> dict:
    """Load a checkpoint into ``model`` (built from the same config) and return its content.

    Raises:
        FileNotFoundError, ValueError: as `read_checkpoint` and `check_state` say.
    """
    checkpoint = read_checkpoint(path)
    check_state(model, checkpoint["state_dict"], str(path))
    model.load_state_dict(checkpoint["state_dict"], strict=False)
    return checkpoint


def plain(value: object) -> object:
    """``value`` as tensors, dicts, lists and plain values only, which torch.load(weights_only=True) takes.

    A HistoryBuffer of MMEngine's message hub becomes ``{'history': [log values, counts], 'max_length': n}``.

    Raises:
        ValueError: the value is, or holds, something else.
    """
    if isinstance(value, HistoryBuffer):
        return dict(history=[torch.from_numpy(part.copy()) for part in value.data], max_length=value.max_length)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (Tensor, str, int, float)):
        return value
    raise ValueError(f"a checkpoint cannot hold a {type(value).__name__}: {value!r}")


def _history(value: dict) -> HistoryBuffer:
    log_values, counts = (part.cpu().numpy() for part in value["history"])
    return HistoryBuffer(log_values, counts, value["max_length"])


@register_backend("atomic")
class AtomicBackend(LocalBackend):
    """MMEngine's local file storage, but a file appears under its name only when it is complete."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write ``obj`` beside ``filepath``, then rename it."""
        part = f"{filepath}.part"
        super().put(obj, part)
        os.replace(part, filepath)


@contextmanager
def _only_trained(model: nn.Module) -> Iterator[None]:
    """Within it ``model.state_dict()`` gives what was trained: the frozen billions are not copied to save a few."""
    names = trained_names(model)

    def drop_frozen(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
        for name in state.keys() - names:
            del state[name]

    handle = model.register_state_dict_post_hook(drop_frozen)
    try:
        yield
    finally:
        handle.remove()


def _bare(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@HOOKS.register_module()
class TrainedCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook for models that are mostly frozen.

    A checkpoint holds what was trained and nothing else, the optimizer, the schedulers and the log, as tensors and
    plain data. ``latest.pth`` beside it is the newest one. Loading is strict: the checkpoint and the model have to
    agree on what was trained. Arguments as in CheckpointHook.
    """

    def __init__(self, interval: int = -1, by_epoch: bool = True, max_keep_ckpts: int = -1) -> None:
        super().__init__(
            interval=interval, by_epoch=by_epoch, max_keep_ckpts=max_keep_ckpts, backend_args=dict(backend="atomic")
        )

    def before_train(self, runner: Runner) -> None:
        """Check that checkpoints fall where no accumulated gradient is pending: those are not saved.

        Raises:
            ValueError: the interval is not a multiple of ``accumulative_counts``.
        """
        counts = runner.optim_wrapper._accumulative_counts
        batches = self.interval * (len(runner.train_dataloader) if self.by_epoch else 1)
        if 0 < batches < runner.max_iters and batches % counts:
            raise ValueError(
                f"default_hooks.checkpoint.interval means a checkpoint every {batches} batches, not a multiple of "
                f"optim_wrapper.accumulative_counts, {counts}"
            )
        super().before_train(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        meta["epoch_length"] = len(runner.train_dataloader)
        with _only_trained(_bare(runner)):
            super()._save_checkpoint_with_step(runner, step, meta)
        if is_main_process():
            _link(Path(self.last_ckpt))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what was trained, as plain data."""
        names = trained_names(_bare(runner))
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in names}
        checkpoint.update({key: plain(value) for key, value in checkpoint.items() if key != "state_dict"})

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check what was loaded against the model, and undo `plain`."""
        source, model = str(runner.cfg.get("load_from")), _bare(runner)
        if "state_dict" not in checkpoint:
            raise ValueError(f"{source} holds no 'state_dict': it is no checkpoint of tools/train.py")
        if runner.cfg.get("resume"):
            _check_epoch_length(checkpoint, len(runner.train_dataloader), source)
        check_state(model, checkpoint["state_dict"], source)
        # MMEngine warns about each missing key; the frozen ones are no news.
        checkpoint["state_dict"] = {**model.state_dict(), **checkpoint["state_dict"]}
        scalars = checkpoint.get("message_hub", {}).get("log_scalars", {})
        scalars.update({name: _history(value) for name, value in scalars.items()})


def _check_epoch_length(checkpoint: dict, length: int, source: str) -> None:
    before = checkpoint["meta"].get("epoch_length", length)
    if before != length:
        raise ValueError(
            f"cannot resume {source}: an epoch had {before} batches per process then and has {length} now "
            "(other data, batch size or number of processes)"
        )


def _link(checkpoint: Path) -> None:
    """Let latest.pth in the folder of ``checkpoint`` be that file: a link, or a copy where links cannot be made."""
    part = checkpoint.with_name(LATEST + ".part")
    part.unlink(missing_ok=True)
    try:
        part.symlink_to(checkpoint.name)
    except OSError:
        part.write_bytes(checkpoint.read_bytes())
    os.replace(part, checkpoint.with_name(LATEST))
