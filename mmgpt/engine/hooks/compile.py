"""Hook that compiles the layers of a model for training."""

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmgpt.engine.trainable import unwrap_model
from mmgpt.models.memory.compile import compile_layers, compiled
from mmgpt.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles the layers of a model for the steps of training, layer by layer; evaluation is not compiled.

    MMGPTRunner registers it where a config sets `compile`.

    Args:
        options: arguments of `torch.compile`; True for its defaults.
    """

    def __init__(self, options: dict | bool) -> None:
        self.options = options

    def before_train(self, runner: Runner) -> None:
        """Compile the layers, before the first batch."""
        compile_layers(unwrap_model(runner), self.options)
        runner.model.train_step = compiled(runner.model.train_step)

    def after_run(self, runner: Runner) -> None:
        """Reset torch's stance, so that functions compiled outside of training steps work as usual."""
        torch.compiler.set_stance("default")
