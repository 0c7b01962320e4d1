"""MMEngine's Runner as tools/train.py and tools/test.py run it."""

import logging
from collections.abc import Sequence
from copy import copy
from functools import cached_property

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook, ParamSchedulerHook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmgpt.models.image_path import check_image_path, tell_unseen_images
from mmgpt.models.memory.compile import check_options, compile_layers, compiled
from mmgpt.models.weights.reader import read_file
from mmgpt.registry import MODEL_WRAPPERS

from . import resume
from .hooks.guards import hooks_of_run, turned_off
from .parallel.fsdp import ShardedDataParallel
from .trainable import bare_model
from .warmup import fit_schedule

# How MMEngine's messages begin that fill screens.
LONG = ("Config:", "Hooks will be executed", "\n" + "-" * 60 + "\nSystem environment")


class MMGPTRunner(Runner):
    """A Runner with its config, hooks and environment in the log's file alone; the config is also dumped.

    Its hooks are those of `hooks_of_run`, its schedule fits the run (`fit_schedule`), and a model that would not see
    its images is not trained (`check_image_path`). A model to be sharded is never whole on one GPU; `compile` of the
    config compiles layers (see `models.compiling`).
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> "MMGPTRunner":
        """Same as MMEngine's, in our scope; wrong hooks or a wrong `compile` are refused before the model is built.

        Raises:
            ValueError: says what is wrong.
        """
        hooks_of_run(cfg.get("default_hooks"), cfg.get("custom_hooks"))
        if "compile" in cfg:
            # Imported where it is used: it brings transformers, which takes seconds.

            check_options(cfg.compile)
        if not cfg.get("default_scope"):
            cfg = copy(cfg)
            cfg["default_scope"] = "mmgpt"
        return super().from_cfg(cfg)

    @cached_property
    def run_settings(self) -> dict:
        """What the weights of the run depend on, see `resume.run_settings`; its files as they were when first asked."""
        return resume.run_settings(self.cfg)

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Same as MMEngine's; a checkpoint that cannot be resumed is refused before the weights of a base are read.

        Raises:
            ValueError: says why; or processes would go on from different places.
        """
        self._check_same_start()
        if self._resume and self._load_from:
            # Imported where it is used: it brings transformers, which takes seconds.

            path = str(self._load_from)

            def seed_of_run() -> int | None:
                checkpoint = read_file(path)
                resume.changes(checkpoint, self.run_settings, path)
                return checkpoint["meta"].get("seed")

            seed = resume.agreed(seed_of_run)
            if self._randomness_cfg.get("seed") is None and seed is not None:
                self.logger.info(f"The run goes on with the seed {seed}, which was drawn as it began.")
                self._randomness_cfg.update(seed=seed)
                self.set_randomness(**self._randomness_cfg)
        return super().build_model(model)

    def _check_same_start(self) -> None:
        """Raise a ValueError in all processes if they resume from different checkpoints, or only some of them do."""
        starts = all_gather_object((bool(self._resume), self._load_from and str(self._load_from)))
        if len(set(starts)) > 1:
            lines = [f"  process {i}: resume={resume}, load_from={path}" for i, (resume, path) in enumerate(starts)]
            told = "the processes would start from different checkpoints; do all of them share the work directory?"
            raise ValueError("\n".join([told, *lines]))

    def train(self) -> nn.Module:
        """Same as MMEngine's; afterwards the process compiles again what it is asked to.

        Raises:
            ValueError: images cannot reach the model or teach it. This is checked before the data is read, since no
                checkpoint could change it: those to start from hold only what is trained.
        """

        check_image_path(bare_model(self))
        try:
            return super().train()
        finally:
            if self.cfg.get("compile"):  # torch imports its compiler for it
                torch.compiler.set_stance("default")

    def load_or_resume(self) -> None:
        """Same as MMEngine's; a warning tells of a model that is about to answer and that no image reaches."""
        super().load_or_resume()
        if not isinstance(self._train_loop, BaseLoop):
            tell_unseen_images(bare_model(self))

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list[Hook | dict] | None = None) -> None:
        """Register the hooks of `hooks_of_run`; the log names what the config turns off."""
        for hook in hooks_of_run(default_hooks, custom_hooks):
            self.register_hook(hook)
        for line in turned_off(default_hooks):
            self.logger.warning(line)

    def _build_param_scheduler(
        self, scheduler: _ParamScheduler | dict | Sequence, optim_wrapper: OptimWrapper
    ) -> list[_ParamScheduler]:
        # Nothing would take a schedule on from its first step, which may be a thousandth of the rate.
        if not any(isinstance(hook, ParamSchedulerHook) for hook in self.hooks):
            return []
        schedulers = scheduler if isinstance(scheduler, Sequence) else [scheduler]
        return super()._build_param_scheduler(
            fit_schedule(schedulers, self.max_iters, len(self.train_dataloader)), optim_wrapper
        )

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Same as MMEngine's, except that a model to be sharded goes to its device when it is, and for the default."""
        if self.distributed and not model_wrapper_cfg:
            # MMEngine's own ends with an error where a process has no images in a batch.
            model_wrapper_cfg = dict(type="mmgpt.UnusedParamsDDP", device_ids=None, broadcast_buffers=False)
        if self.distributed and model_wrapper_cfg.get("type") == "mmgpt.ShardedDataParallel":
            return MODEL_WRAPPERS.build(model_wrapper_cfg, default_args=dict(module=model))
        return super().wrap_model(model_wrapper_cfg, model)

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs) -> MMLogger:
        """MMEngine's logger, whose arguments these are, with a filter before the screen."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda record: not str(record.msg).startswith(LONG))
        return logger

    def _init_model_weights(self) -> None:
        # MMEngine would broadcast what is sharded already; our models are built with their weights.
        if not isinstance(self.model, ShardedDataParallel):
            super()._init_model_weights()

    def _maybe_compile(self, target: str) -> None:
        # MMEngine would compile a whole step: it takes minutes, and is cut wherever something depends on values.
        options = self.cfg.get("compile")
        if options:
            compile_layers(bare_model(self), options)
            setattr(self.model, target, compiled(getattr(self.model, target)))
