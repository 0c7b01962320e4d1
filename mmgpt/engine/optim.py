"""Constructor of the optimizer: trainable parameters only, with weight decay for some of them."""

import logging

from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from mmgpt.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS

from .parallel.ddp import UnusedParamsDDP


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOptimWrapperConstructor:
    """Builds an optimizer over the trainable parameters, in two groups: with weight decay and without.

    MMEngine's own constructor also takes the frozen parameters (one group each), and does not distinguish matrices from
    gates.

    Args:
        optim_wrapper_cfg: config of the OptimWrapper with its ``optimizer``.
        paramwise_cfg: ``dict(decayed=name)``: only the matrices with ``name`` in their name decay. None: all matrices.

    Raises:
        ValueError: the model has no trainable parameter, ``paramwise_cfg`` has another key, or the optimizer refuses
            a hyperparameter.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        unknown = set(paramwise_cfg or {}) - {"decayed"}
        if unknown:
            raise ValueError(f"paramwise_cfg has {sorted(unknown)}; the only choice is 'decayed'")
        self.cfg = optim_wrapper_cfg
        self.decayed = (paramwise_cfg or {}).get("decayed", "")

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The optimizer wrapper for ``model``, which may be wrapped for distributed training."""
        groups = {True: [], False: []}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups[parameter.ndim >= 2 and self.decayed in name].append(parameter)
        if not any(groups.values()):
            raise ValueError("no parameter of the model requires gradients: there is nothing to train")
        print_log(
            f"The optimizer gets {len(groups[True])} tensors with weight decay and {len(groups[False])} without.",
            logger="current",
            level=logging.INFO,
        )
        params = [dict(params=groups[True]), dict(params=groups[False], weight_decay=0.0)]
        optimizer_cfg = {**self.cfg["optimizer"], "params": [group for group in params if group["params"]]}
        try:
            optimizer = OPTIMIZERS.build(optimizer_cfg)
        except ValueError as error:
            raise ValueError(f"optim_wrapper.optimizer: {error}") from error
        if isinstance(model, UnusedParamsDDP):
            optimizer.register_step_pre_hook(model.forget_unused)
        wrapper = {"type": "OptimWrapper", **self.cfg, "optimizer": optimizer}
        return OPTIM_WRAPPERS.build(wrapper)
