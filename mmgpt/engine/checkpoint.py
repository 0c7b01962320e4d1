"""Checkpoints that hold what was trained, are loaded without running code, and are never half written."""

import os
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from mmgpt.cli.work_dir import LATEST, STOPPED, check_space, remove_parts, remove_shards
from mmgpt.models.weights.loading import check_fit, check_tuning, load_state, log_loaded
from mmgpt.models.weights.names import our_names
from mmgpt.models.weights.reader import read_weights, state_and_tuning
from mmgpt.registry import HOOKS
from mmgpt.utils.atomic import atomic_write

from . import resume
from .loops import ResumableEpochLoop
from .parallel.fsdp import shard_like
from .trainable import bare_model, is_sharded, saving_trained, shard_states, trained_names


def trained_part(model: nn.Module, checkpoint: dict, source: str) -> dict[str, Tensor]:
    """The tensors of a file's content under the model's names, which must be exactly those that `trained_names` lists.

    Args:
        model: built from the config that the checkpoint belongs to.
        checkpoint: content of a file of tools/train.py, or of MultiModal-GPT's LoRA files in any of their layouts.
        source: its name, for messages.

    Raises:
        ValueError: it belongs to another config; names the tensors, or the setting of LoRA.
    """
    # Imported where it is used, as in the functions below: the models bring transformers, which takes seconds.

    state, tuning = state_and_tuning(checkpoint, source)
    check_tuning(model, tuning, source)
    state, names = our_names(model, state, source), trained_names(model)
    check_fit(model, state, required=names, allowed=names, source=source)
    return state


def load_trained(model: nn.Module, path: str | os.PathLike) -> None:
    """Load a checkpoint into ``model`` (built from the same config), with a line in the log of what was loaded.

    Raises:
        FileNotFoundError, ValueError: as `read_weights` and `trained_part` say.
    """

    load_state(model, trained_part(model, read_weights(path), str(path)), str(path))


def load_from_local(filename: str, map_location: str | None = None) -> dict:
    """MMEngine's loader of local files, reading safely. Not memory-mapped: a later checkpoint may replace the file.

    The text of a config that old versions of MMCV kept in `meta` is left out: a config is read from its own file only.

    Raises:
        FileNotFoundError, ValueError: as `read_weights` says; an address, such as https://..., is not a file.
    """

    content = read_weights(filename, map_location or "cpu", mmap=False)
    if isinstance(content.get("meta"), dict):
        content["meta"].pop("config", None)
    return content


# Our loader replaces MMEngine's for paths and for addresses of every scheme. The loaders of onedl-mmengine load
# unsafely what they cannot load safely, and with both engines an environment variable
# (TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD) decides whether addresses are loaded safely.
CheckpointLoader.register_scheme(["", *CheckpointLoader._schemes], load_from_local, force=True)


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
        with atomic_write(filepath) as part:
            super().put(obj, part)


@HOOKS.register_module()
class TrainableCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook for models that are mostly frozen.

    A checkpoint holds what was trained and nothing else, the optimizer, the schedulers and the log, as tensors and
    plain data. ``latest.pth`` beside it is the newest one. Loading is strict: the checkpoint and the model have to
    agree on what was trained. Arguments as in CheckpointHook, but the oldest is removed when the new one is written,
    not before.

    Args:
        sharded: where processes share the model, each writes its part into a folder beside the checkpoint, instead of
            the first process all of it. Only the best checkpoint and the one at a signal are in one file all the same.
    """

    def __init__(
        self,
        interval: int = -1,
        by_epoch: bool = True,
        max_keep_ckpts: int = -1,
        save_best: str | None = None,
        rule: str | None = None,
        sharded: bool = False,
    ) -> None:
        self.kept, self.sharded = max_keep_ckpts, sharded
        # MMEngine removes before it writes, so it is given one more than there are.
        more = max_keep_ckpts + 1 if max_keep_ckpts > 0 else max_keep_ckpts
        own = dict(interval=interval, by_epoch=by_epoch, max_keep_ckpts=more, save_best=save_best, rule=rule)
        super().__init__(**own, backend_args=dict(backend="atomic"))

    def before_train(self, runner: Runner) -> None:
        """Note the settings of the run, and raise a ValueError if the disk has no room for a checkpoint."""
        super().before_train(runner)
        if is_main_process():
            _run_settings(runner)  # looks at the files now: they may change before the first checkpoint
            remove_parts(self.out_dir)
            check_space(self.out_dir, _size(bare_model(runner)))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        """Save at the end of a step of the optimizer in which a checkpoint falls due, or which is the last.

        Within a step there are accumulated gradients, as large as all that is trained, and different in each process.
        A step is seconds: to wait for its end costs less than to save them, and a run resumed there is exact.
        """
        done, wrapper = runner.iter + 1, runner.optim_wrapper
        if self.by_epoch or not wrapper.should_update():
            return
        due = self.interval > 0 and done // self.interval > (done - wrapper.inner_count) // self.interval
        if due or self.is_last_train_iter(runner):
            runner.logger.info(f"Saving checkpoint at {done} iterations")
            self._save_checkpoint(runner)

    def save_now(self, runner: Runner) -> None:
        """Save after the current training step, whatever the interval: as stopped.pth, which the next such replaces."""
        step = runner.iter + 1
        if Path(self.last_ckpt or "").name == f"iter_{step}.pth":
            return
        meta = dict(epoch=runner.epoch, iter=step, epoch_length=len(runner.train_dataloader))
        with saving_trained(runner):
            runner.save_checkpoint(self.out_dir, STOPPED, meta=meta, backend_args=self.backend_args)
        if is_main_process():
            _link(Path(self.out_dir) / STOPPED)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        meta["epoch_length"] = len(runner.train_dataloader)
        shards = self._shards(step) if self.sharded and is_sharded(runner) else None
        if shards and is_main_process():
            Path(self.out_dir, self.filename_tmpl.format(step)).unlink(missing_ok=True)  # it names them
        with saving_trained(runner, shards):
            if shards:
                meta["shards"] = {"folder": shards.name, "files": get_world_size()}
            super()._save_checkpoint_with_step(runner, step, meta)
        if is_main_process():
            _link(Path(self.last_ckpt))
        while 0 < self.kept < len(self.keep_ckpt_ids):
            self._remove(self.keep_ckpt_ids.popleft())

    def _remove(self, step: int) -> None:
        if is_main_process():
            Path(self.out_dir, self.filename_tmpl.format(step)).unlink(missing_ok=True)
            remove_shards(self._shards(step))

    def _shards(self, step: int) -> Path:
        return Path(self.out_dir, self.filename_tmpl.format(step)).with_suffix(".shards")

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with saving_trained(runner):
            super()._save_best_checkpoint(runner, metrics)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what was trained, as plain data, and the settings that it was trained with."""
        checkpoint["meta"]["settings"] = _run_settings(runner)
        names = trained_names(bare_model(runner))
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in names}
        checkpoint.update({key: plain(value) for key, value in checkpoint.items() if key != "state_dict"})

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check what was loaded against the model, and turn plain data back into MMEngine's objects."""

        source, model = str(runner.cfg.get("load_from")), bare_model(runner)
        if runner.cfg.get("resume"):
            _go_on(runner, checkpoint, source)
        elif isinstance(runner._train_loop, BaseLoop):
            resume.tell_new_run(checkpoint, runner.cfg, source)
        state = trained_part(model, checkpoint, source)
        log_loaded(model, state, source)
        # MMEngine warns about each missing key; the frozen ones are no news.
        own = model.state_dict()
        checkpoint["state_dict"] = {**own, **{name: shard_like(value, own[name]) for name, value in state.items()}}
        if runner.cfg.get("resume"):
            shard_states(checkpoint["optimizer"], runner.optim_wrapper.param_groups)
        _keep_to_folder(checkpoint.get("message_hub", {}).get("runtime_info", {}), Path(runner.work_dir))
        scalars = checkpoint.get("message_hub", {}).get("log_scalars", {})
        scalars.update({name: _history(value) for name, value in scalars.items()})


def _size(model: nn.Module) -> int:
    """Bytes of a checkpoint, about: what is trained, and the two tensors that Adam keeps for each."""
    return 3 * sum(each.numel() * each.element_size() for each in model.parameters() if each.requires_grad)


def _run_settings(runner: Runner) -> dict:
    """The settings of a run, which MMGPTRunner computes once; MMEngine's own Runner does not know them."""
    return runner.run_settings if hasattr(runner, "run_settings") else resume.run_settings(runner.cfg)


def _keep_to_folder(info: dict, folder: Path) -> None:
    """Lets the older checkpoints that a checkpoint names, which MMEngine removes, be files of the run's folder.

    The folder may have moved since, and a file from elsewhere may name anything.
    """
    for name, value in info.items():
        if name.startswith("best_ckpt") and value is not None:
            info[name] = str(folder / Path(str(value)).name)
    if "keep_ckpt_ids" in info:
        info["keep_ckpt_ids"] = [step for step in info["keep_ckpt_ids"] if type(step) is int]


def _go_on(runner: Runner, checkpoint: dict, source: str) -> None:
    """Check that a run can go on from a checkpoint, and put the schedule that the run now has into it.

    Raises:
        ValueError: it cannot, see `resume.changes`; an epoch has another number of batches, or cannot be entered there.
    """
    length, loop, meta = len(runner.train_dataloader), runner.train_loop, checkpoint.get("meta", {})
    if isinstance(loop, ResumableEpochLoop) and meta:
        loop.check_place(meta.get("iter", 0))
    changes = resume.agreed(lambda: resume.changes(checkpoint, _run_settings(runner), source))
    before = meta.get("epoch_length", length)
    if before != length:
        raise ValueError(
            f"cannot resume {source}: an epoch had {before} batches per process then and has {length} now "
            "(other data, batch size or number of processes)"
        )
    if meta.get("seed") is not None and runner._randomness_cfg.get("seed") is None:
        raise ValueError(
            f"cannot resume {source} without a seed; set the seed that was drawn then: seed={meta['seed']}"
        )
    resume.tell(changes, meta)
    resume.rebuild(runner, checkpoint, changes)


def _link(checkpoint: Path) -> None:
    """Let latest.pth in the folder of ``checkpoint`` be that file: a link, or a copy where links cannot be made."""
    with atomic_write(checkpoint.with_name(LATEST)) as part:
        try:
            part.symlink_to(checkpoint.name)
        except OSError:
            part.write_bytes(checkpoint.read_bytes())
