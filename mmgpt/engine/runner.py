"""MMEngine's Runner as tools/train.py and tools/test.py run it."""

import logging

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from mmgpt.registry import MODEL_WRAPPERS

# `checkpoint` sets how MMEngine reads checkpoints, whichever hook the config names.
from . import checkpoint, resume  # noqa: F401
from .sharding import ShardedDataParallel
from .trained import bare_model

# How MMEngine's messages begin that fill screens.
LONG = ("Config:", "Hooks will be executed", "\n" + "-" * 60 + "\nSystem environment")


class MMGPTRunner(Runner):
    """A Runner with its config, hooks and environment in the log's file alone; the config is also dumped.

    A model to be sharded is never whole on one GPU; `compile` of the config compiles layers (see `models.compiling`).
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> "MMGPTRunner":
        """As MMEngine; a wrong `compile` is refused (ValueError) before the model is built."""
        if "compile" in cfg:
            # Here: it brings transformers.
            from mmgpt.models.compiling import check_options

            check_options(cfg.compile)
        return super().from_cfg(cfg)

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Same as MMEngine's; a checkpoint that cannot be resumed is refused before the weights of a base are read."""
        if self._resume and self._load_from:
            # Here: it brings transformers.
            from mmgpt.models.weight_files import read_file

            path = str(self._load_from)
            resume.agreed(lambda: resume.changes(read_file(path), resume.settings(self.cfg), path))
        return super().build_model(model)

    def train(self) -> nn.Module:
        """As MMEngine; afterwards the process compiles again what it is asked to."""
        try:
            return super().train()
        finally:
            if self.cfg.get("compile"):  # torch imports its compiler for it
                torch.compiler.set_stance("default")

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """As MMEngine, but a model to be sharded goes to its device when it is."""
        if self.distributed and (model_wrapper_cfg or {}).get("type") == "mmgpt.ShardedDataParallel":
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
            from mmgpt.models.compiling import compile_layers, compiled

            compile_layers(bare_model(self), options)
            setattr(self.model, target, compiled(getattr(self.model, target)))
