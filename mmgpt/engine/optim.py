"""Which parameters the optimizer gets, and which of them decay."""

import logging

from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from mmgpt.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS

from .parallel.ddp import UnusedParamsDDP


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOptimWrapperConstructor:
    """Builds an optimizer over the parameters that require gradients, in two groups: with weight decay and without.

    MMEngine's own constructor also takes the frozen parameters (one group each), and cannot tell matrices from gates.

    Args:
        optim_wrapper_cfg: config of the OptimWrapper with its ``optimizer``.
        paramwise_cfg: ``dict(decayed=name)``: only the matrices with ``name`` in their name decay. None: all matrices.

    Raises:
        ValueError: nothing in the model requires gradients, or ``paramwise_cfg`` has another key.
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
        optimizer = OPTIMIZERS.build(
            {**self.cfg["optimizer"], "params": [group for group in params if group["params"]]}
        )
        if isinstance(model, UnusedParamsDDP):
            optimizer.register_step_pre_hook(model.forget_unused)
        wrapper = {"type": "OptimWrapper", **self.cfg, "optimizer": optimizer}
        return OPTIM_WRAPPERS.build(wrapper)
