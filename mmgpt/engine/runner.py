"""MMEngine's Runner as tools/train.py and tools/test.py use it."""

import logging
from collections.abc import Sequence
from copy import copy
from functools import cached_property

from mmengine.config import Config
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook, ParamSchedulerHook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmgpt.cli.config import steps_of
from mmgpt.cli.trackers import check_trackers
from mmgpt.models.image_path import CLOSED_GATES, check_image_path, has_closed_gates, warn_of_closed_gates
from mmgpt.models.memory.compile import check_options
from mmgpt.models.weights.reader import read_file
from mmgpt.registry import MODEL_WRAPPERS

from . import resume
from .hooks.compile import CompileHook
from .hooks.default_hooks import disabled_hook_lines, hooks_of_run
from .parallel.fsdp import ShardedDataParallel
from .schedule import check_ratios, fit_schedule
from .trainable import unwrap_model

# MMEngine's messages that fill a screen, by their first words.
LONG_MESSAGES = ("Config:", "Hooks will be executed", "\n" + "-" * 60 + "\nSystem environment")


class MMGPTRunner(Runner):
    """MMEngine's Runner for models that are mostly frozen.

    Six differences: the hooks are those of `hooks_of_run`; the schedule is fitted to the run (`fit_schedule`); a model
    that images cannot reach is not trained (`check_image_path`); a checkpoint of a run with other settings is not
    resumed (`compare_settings`); a model to be sharded is never whole on one GPU; `compile` of the config compiles
    layers instead of a whole step (`CompileHook`). Config, hooks and environment are logged to the file alone.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> "MMGPTRunner":
        """Same as MMEngine's, except that the default scope is mmgpt's, and that settings are checked first.

        Raises:
            ValueError: the hooks or the options of `compile` are wrong, or the package of a tracker is missing.
        """
        hooks_of_run(cfg.get("default_hooks"), cfg.get("custom_hooks"))
        check_options(cfg.get("compile"))
        check_trackers((cfg.get("visualizer") or {}).get("vis_backends") or ())
        if not cfg.get("default_scope"):
            cfg = copy(cfg)
            cfg["default_scope"] = "mmgpt"
        return super().from_cfg(cfg)

    @cached_property
    def run_settings(self) -> dict:
        """Settings that the weights depend on, see `resume.run_settings`; files are fingerprinted at the first use."""
        return resume.run_settings(self.cfg)

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Same as MMEngine's, except that a checkpoint is compared with the config before the base's weights are read.

        Raises:
            ValueError: the checkpoint cannot be resumed, or the processes would start from different checkpoints.
        """
        starts = all_gather_object((bool(self._resume), self._load_from and str(self._load_from)))
        if len(set(starts)) > 1:
            lines = [f"  process {i}: resume={resumes}, load_from={path}" for i, (resumes, path) in enumerate(starts)]
            reason = "the processes would start from different checkpoints; do all of them share the work directory?"
            raise ValueError("\n".join([reason, *lines]))
        if self._resume and self._load_from:
            path = str(self._load_from)

            def check_and_read_seed() -> int | None:
                checkpoint = read_file(path)
                resume.compare_settings(checkpoint, self.run_settings, path)
                return checkpoint["meta"].get("seed")

            seed = resume.on_main_process(check_and_read_seed)
            if self._randomness_cfg.get("seed") is None and seed is not None:
                self.logger.info(f"The run goes on with the seed {seed}, which was drawn as it began.")
                self._randomness_cfg.update(seed=seed)
                self.set_randomness(**self._randomness_cfg)
        return super().build_model(model)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Same as MMEngine's, except that the model is checked before the data is read.

        No checkpoint could change the result, since checkpoints hold the trainable tensors only.

        Raises:
            ValueError: images cannot reach the model or teach it.
        """
        check_image_path(unwrap_model(self))
        return super().build_train_loop(loop)

    def load_or_resume(self) -> None:
        """Same as MMEngine's, except that a model which images do not reach answers no questions about images.

        Raises:
            ValueError: the gates of an evaluated model let no image in, and its test data has images.
        """
        super().load_or_resume()
        if isinstance(self._train_loop, BaseLoop):
            return
        model = unwrap_model(self)
        if any(steps_of(self.cfg.get("test_dataloader"), "LoadImages", "LoadFeatures")) and has_closed_gates(model):
            raise ValueError(f"{CLOSED_GATES}, or evaluate on texts alone")
        warn_of_closed_gates(model)

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list[Hook | dict] | None = None) -> None:
        """Register the hooks of `hooks_of_run`; the log names those that the config turns off."""
        for hook in hooks_of_run(default_hooks, custom_hooks):
            self.register_hook(hook)
        if self.cfg.get("compile"):
            self.register_hook(CompileHook(self.cfg["compile"]))
        for line in disabled_hook_lines(default_hooks):
            self.logger.warning(line)

    def _maybe_compile(self, target: str) -> None:
        """Does nothing, unlike MMEngine's: a whole step would compile for minutes, and break at each test of values."""

    def _build_param_scheduler(
        self, scheduler: _ParamScheduler | dict | Sequence, optim_wrapper: OptimWrapper
    ) -> list[_ParamScheduler]:
        # Without the hook, nothing would step a schedule beyond its first rate, which may be a thousandth of `lr`.
        if not any(isinstance(hook, ParamSchedulerHook) for hook in self.hooks):
            return []
        schedulers = scheduler if isinstance(scheduler, Sequence) else [scheduler]
        check_ratios(schedulers, (group["lr"] for group in optim_wrapper.param_groups))
        return super()._build_param_scheduler(
            fit_schedule(schedulers, self.max_iters, len(self.train_dataloader)), optim_wrapper
        )

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Same as MMEngine's, except that UnusedParamsDDP is the default, and a sharded model moves its own shards."""
        if self.distributed and not model_wrapper_cfg:
            # MMEngine's default fails where a process has no images in a batch.
            model_wrapper_cfg = dict(type="mmgpt.UnusedParamsDDP", device_ids=None, broadcast_buffers=False)
        if self.distributed and model_wrapper_cfg.get("type") == "mmgpt.ShardedDataParallel":
            return MODEL_WRAPPERS.build(model_wrapper_cfg, default_args=dict(module=model))
        return super().wrap_model(model_wrapper_cfg, model)

    def _init_model_weights(self) -> None:
        # MMEngine would broadcast weights that are sharded already; our models are built with their weights.
        if not isinstance(self.model, ShardedDataParallel):
            super()._init_model_weights()

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs) -> MMLogger:
        """MMEngine's logger, except that long messages do not reach the screen."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda record: not str(record.msg).startswith(LONG_MESSAGES))
        return logger
