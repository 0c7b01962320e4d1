"""Hook that writes checkpoints of the trainable tensors and loads them strictly."""

from pathlib import Path

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import BaseLoop, Runner

from mmgpt.cli.work_dir import LATEST, STOPPED, check_space, remove_incomplete, remove_shards
from mmgpt.engine import resume
from mmgpt.engine.checkpoint import to_plain_data
from mmgpt.engine.loops import ResumableEpochLoop
from mmgpt.engine.parallel.fsdp import shard_like
from mmgpt.engine.schedule import rebuild_schedule
from mmgpt.engine.trainable import is_sharded, shard_states, trainable_state_dicts, unwrap_model
from mmgpt.models.weights.loading import log_loaded
from mmgpt.models.weights.trainable import checked_state, trainable_names
from mmgpt.registry import HOOKS
from mmgpt.utils.atomic import atomic_write


@HOOKS.register_module()
class TrainableCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook for models that are mostly frozen.

    A checkpoint holds the trainable tensors of the model, the states of optimizer and schedulers, and the log, all of
    them tensors and plain data. ``latest.pth`` beside it is the newest one. Loading is strict: the trainable tensors of
    the checkpoint and of the model have to be the same. The arguments are CheckpointHook's, except that the oldest
    checkpoint is removed after the new one is written, not before.

    Args:
        sharded: with a sharded model, each process writes its shards into a folder beside the checkpoint, instead of
            the first process writing everything. The best checkpoint and the one at a signal are one file all the same.
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
        self.max_checkpoints, self.sharded = max_keep_ckpts, sharded
        super().__init__(
            interval=interval,
            by_epoch=by_epoch,
            # MMEngine removes the oldest before it writes, so it is allowed one more.
            max_keep_ckpts=max_keep_ckpts + 1 if max_keep_ckpts > 0 else max_keep_ckpts,
            save_best=save_best,
            rule=rule,
            backend_args=dict(backend="atomic"),
        )

    def before_train(self, runner: Runner) -> None:
        """Record the settings of the run, and raise a ValueError if the disk has no room for a checkpoint."""
        super().before_train(runner)
        if is_main_process():
            _run_settings(runner)  # The files are fingerprinted now, since they may change before the first checkpoint.
            remove_incomplete(self.out_dir)
            trainable = [weight for weight in unwrap_model(runner).parameters() if weight.requires_grad]
            # Adam keeps two tensors beside each trainable one.
            check_space(self.out_dir, 3 * sum(weight.numel() * weight.element_size() for weight in trainable))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        """Save at the end of the optimizer step in which a checkpoint falls due, and at the end of the last step.

        Within a step there are accumulated gradients, as large as all trainable tensors and different in each process.
        A step takes seconds: waiting for its end costs less than saving them, and a run resumed there is exact.
        """
        batches, wrapper = runner.iter + 1, runner.optim_wrapper
        if self.by_epoch or not wrapper.should_update():
            return
        due = self.interval > 0 and batches // self.interval > (batches - wrapper.inner_count) // self.interval
        if due or self.is_last_train_iter(runner):
            runner.logger.info(f"Saving checkpoint at {batches} iterations")
            self._save_checkpoint(runner)

    def save_now(self, runner: Runner) -> None:
        """Save after the current training step, whatever the interval: as stopped.pth, which is replaced each time."""
        batches = runner.iter + 1
        if Path(self.last_ckpt or "").name == f"iter_{batches}.pth":
            return
        meta = dict(epoch=runner.epoch, iter=batches, epoch_length=len(runner.train_dataloader))
        with trainable_state_dicts(runner):
            runner.save_checkpoint(self.out_dir, STOPPED, meta=meta, backend_args=self.backend_args)
        if is_main_process():
            _link_latest(Path(self.out_dir) / STOPPED)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        meta["epoch_length"] = len(runner.train_dataloader)
        path = Path(self.out_dir, self.filename_tmpl.format(step))
        shards = path.with_suffix(".shards") if self.sharded and is_sharded(runner) else None
        if shards and is_main_process():
            path.unlink(missing_ok=True)  # An older file of that name would refer to the new shards.
        with trainable_state_dicts(runner, shards):
            if shards:
                meta["shards"] = {"folder": shards.name, "files": get_world_size()}
            super()._save_checkpoint_with_step(runner, step, meta)
        if is_main_process():
            _link_latest(Path(self.last_ckpt))
        while 0 < self.max_checkpoints < len(self.keep_ckpt_ids):
            oldest = Path(self.out_dir, self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            if is_main_process():
                oldest.unlink(missing_ok=True)
                remove_shards(oldest.with_suffix(".shards"))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with trainable_state_dicts(runner):
            super()._save_best_checkpoint(runner, metrics)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reduce a checkpoint to trainable tensors and plain data, and add the settings of the run."""
        checkpoint["meta"]["settings"] = _run_settings(runner)
        names = trainable_names(unwrap_model(runner))
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in names}
        checkpoint.update({key: to_plain_data(value) for key, value in checkpoint.items() if key != "state_dict"})

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check a loaded checkpoint against the run, and turn its plain data back into MMEngine's objects.

        Raises:
            ValueError: the weights do not fit the model (see `checked_state`); or the run cannot be resumed: see
                `resume.compare_settings`, an epoch has another number of batches, or the loop cannot start within one.
        """
        source, model = str(runner.cfg.get("load_from")), unwrap_model(runner)
        # 1. Check that the run can be resumed with its settings, and rebuild the schedule for those that changed.
        if runner.cfg.get("resume"):
            length, loop, meta = len(runner.train_dataloader), runner.train_loop, checkpoint.get("meta", {})
            if isinstance(loop, ResumableEpochLoop) and meta:
                loop.check_start(meta.get("iter", 0))
            changes = resume.on_main_process(lambda: resume.compare_settings(checkpoint, _run_settings(runner), source))
            saved_length = meta.get("epoch_length", length)
            if saved_length != length:
                raise ValueError(
                    f"cannot resume {source}: an epoch had {saved_length} batches per process then and has {length} "
                    "now (other data, batch size or number of processes)"
                )
            if meta.get("seed") is not None and runner._randomness_cfg.get("seed") is None:
                raise ValueError(
                    f"cannot resume {source} without a seed; set the seed that was drawn then: seed={meta['seed']}"
                )
            resume.log_changes(changes, meta)
            rebuild_schedule(runner, checkpoint, changes)
        elif isinstance(runner._train_loop, BaseLoop):
            resume.log_new_run(checkpoint, runner.cfg, source)
        # 2. Load the weights. MMEngine warns about each missing key, so the frozen weights of the model are filled in.
        state = checked_state(model, checkpoint, source)
        log_loaded(model, state, source)
        model_state = model.state_dict()
        loaded = {name: shard_like(value, model_state[name]) for name, value in state.items()}
        checkpoint["state_dict"] = {**model_state, **loaded}
        # 3. Shard the states of the optimizer like its parameters.
        if runner.cfg.get("resume"):
            shard_states(checkpoint["optimizer"], runner.optim_wrapper.param_groups)
        # 4. Restore the log, and the names of the older checkpoints, which MMEngine removes. They are taken as files of
        # this run's folder, since the folder may have moved and a foreign checkpoint may name any file.
        hub = checkpoint.get("message_hub", {})
        info = hub.get("runtime_info", {})
        for name, value in info.items():
            if name.startswith("best_ckpt") and value is not None:
                info[name] = str(Path(runner.work_dir) / Path(str(value)).name)
        if "keep_ckpt_ids" in info:
            info["keep_ckpt_ids"] = [step for step in info["keep_ckpt_ids"] if type(step) is int]
        scalars = hub.get("log_scalars", {})
        for name, buffer in scalars.items():
            log_values, counts = (tensor.cpu().numpy() for tensor in buffer["history"])
            scalars[name] = HistoryBuffer(log_values, counts, buffer["max_length"])


def _run_settings(runner: Runner) -> dict:
    """The settings of a run, which MMGPTRunner computes once; MMEngine's own Runner does not have them."""
    return runner.run_settings if hasattr(runner, "run_settings") else resume.run_settings(runner.cfg)


def _link_latest(checkpoint: Path) -> None:
    """Make latest.pth in the folder of ``checkpoint`` a link to that file, or a copy where links cannot be made."""
    with atomic_write(checkpoint.with_name(LATEST)) as temporary:
        try:
            temporary.symlink_to(checkpoint.name)
        except OSError:
            temporary.write_bytes(checkpoint.read_bytes())
