"""Constructor of the optimizer: trainable parameters only, with learning rate and weight decay by component."""

from collections.abc import Iterable, Mapping

from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn
from torch.optim import SGD, Adam, AdamW

from mmgpt.models.weights.names import component_of
from mmgpt.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from mmgpt.utils.choices import suggest

from .parallel.ddp import UnusedParamsDDP

# The settings of a key, with the hyperparameter of the optimizer that each multiplies.
MULTIPLIED = {"lr_mult": "lr", "decay_mult": "weight_decay"}
# Those that torch fuses on a GPU. (Adagrad takes the argument, too, and refuses it there.)
FUSED = (Adam, AdamW, SGD)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOptimWrapperConstructor:
    """Builds an optimizer over the trainable parameters, in two groups: with weight decay and without.

    MMEngine's own constructor also takes the frozen parameters (one group each), and does not distinguish matrices from
    gates. Here only matrices decay. Each of the `custom_keys` has two groups of its own, named after it.

    On a GPU the optimizer is torch's fused one where there is one (AdamW, Adam, SGD), unless its config sets `fused` or
    `foreach`.

    Args:
        optim_wrapper_cfg: config of the OptimWrapper with its ``optimizer``.
        paramwise_cfg: ``decayed``: only the matrices with this in their name decay. None: all matrices.
            ``custom_keys``, in MMEngine's form: ``dict(perceiver=dict(lr_mult=10, decay_mult=0))``. A key is a part of
            parameters' names, or a component of `component_of` (LoRA, gated blocks, perceiver, ...); the longest key
            that fits decides. ``lr_mult`` multiplies the learning rate; ``decay_mult`` multiplies the weight decay of
            the key's matrices, whatever ``decayed`` says.

    Raises:
        ValueError: the model has no trainable parameter, ``paramwise_cfg`` has another key or a wrong value, a key of
            ``custom_keys`` takes no trainable parameter, or the optimizer refuses a hyperparameter.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        paramwise_cfg = paramwise_cfg or {}
        unknown = paramwise_cfg.keys() - {"decayed", "custom_keys"}
        if unknown:
            raise ValueError(f"paramwise_cfg has {sorted(unknown)}; choose among 'custom_keys' and 'decayed'")
        self.cfg = optim_wrapper_cfg
        self.decayed = paramwise_cfg.get("decayed") or ""
        self.custom_keys = paramwise_cfg.get("custom_keys") or {}
        for key, settings in self.custom_keys.items():
            _check_settings(f"paramwise_cfg.custom_keys[{key!r}]", settings, optim_wrapper_cfg["optimizer"])

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The optimizer wrapper for ``model``, which may be wrapped for distributed training."""
        # 1. Sort the trainable parameters by key, and by whether they decay.
        module = model.module if is_model_wrapper(model) else model
        trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        if not trainable:
            raise ValueError("no parameter of the model requires gradients: there is nothing to train")
        groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
        for name, parameter in trainable.items():
            key = self._key(name)
            decays = self.decayed in name or "decay_mult" in self.custom_keys.get(key, {})
            groups.setdefault((key, parameter.ndim >= 2 and decays), []).append(parameter)
        for key in self.custom_keys.keys() - {key for key, _ in groups}:
            rivals = sorted({self._key(name) for name in trainable if _fits(key, name)})
            reason = f"takes no parameter that {rivals} do not take" if rivals else "fits no trainable parameter"
            choices = {component_of(name) for name in trainable} - {key}
            raise ValueError(f"paramwise_cfg.custom_keys: {key!r} {reason}{suggest(key, choices)}")

        # 2. Make a group of each, those without a key first. Checkpoints hold the optimizer's states in this order.
        params, lines, optimizer = [], [], self.cfg["optimizer"]
        for key, decays in sorted(groups, key=lambda group: (group[0], not group[1])):
            group = {"params": groups[key, decays]}
            for name, value in self.custom_keys.get(key, {}).items():
                group[MULTIPLIED[name]] = optimizer[MULTIPLIED[name]] * value
            if key:
                group["name"] = key
            if not decays:
                group["weight_decay"] = 0.0
            params.append(group)

        # 3. Build the optimizer, and log its groups.
        if _can_be_fused(optimizer, trainable.values()):
            optimizer = {**optimizer, "fused": True}
        try:
            optimizer = OPTIMIZERS.build({**optimizer, "params": params})
        except ValueError as error:
            raise ValueError(f"optim_wrapper.optimizer: {error}") from error
        for group in optimizer.param_groups:
            weights = sum(parameter.numel() for parameter in group["params"])
            lines.append(
                f"  {group.get('name', 'other' if self.custom_keys else 'all')}: {len(group['params'])} tensors, "
                f"{weights:,} parameters, lr {group['lr']:.4g}, weight decay {group.get('weight_decay', 0):.4g}"
            )
        print_log("\n".join(["Parameter groups of the optimizer:", *lines]), "current")
        if isinstance(model, UnusedParamsDDP):
            optimizer.register_step_pre_hook(model.forget_unused)
        wrapper = {"type": "OptimWrapper", **self.cfg, "optimizer": optimizer}
        return OPTIM_WRAPPERS.build(wrapper)

    def _key(self, name: str) -> str:
        """The longest of the `custom_keys` that fits a parameter, the first by alphabet of equal ones; '' for none."""
        return max(sorted(key for key in self.custom_keys if _fits(key, name)), key=len, default="")


def _can_be_fused(optimizer: Mapping, parameters: Iterable[nn.Parameter]) -> bool:
    """Whether the optimizer of a config has a fused step, all parameters are on a GPU, and the config does not choose.

    A fused step is one kernel for many tensors, without temporary ones.
    """
    constructor = OPTIMIZERS.get(optimizer["type"]) if isinstance(optimizer["type"], str) else optimizer["type"]
    chosen = {"fused", "foreach", "differentiable"} & optimizer.keys()
    return constructor in FUSED and not chosen and all(parameter.is_cuda for parameter in parameters)


def _fits(key: str, name: str) -> bool:
    return key in name or key == component_of(name)


def _check_settings(name: str, settings: object, optimizer: Mapping) -> None:
    """Raises a ValueError unless the settings of a key are multiples of hyperparameters that the optimizer has."""
    if not isinstance(settings, Mapping) or not settings or settings.keys() - MULTIPLIED.keys():
        raise ValueError(f"{name}={settings!r}: give a dict of {' and '.join(MULTIPLIED)}")
    for setting, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise ValueError(f"{name}.{setting}={value!r}: give a number of at least 0")
        if MULTIPLIED[setting] not in optimizer:
            raise ValueError(f"{name}.{setting} multiplies optimizer.{MULTIPLIED[setting]}, which is not set")
    if settings.get("lr_mult") == 0:
        raise ValueError(f"{name}.lr_mult=0 would train nothing: freeze the component instead")
