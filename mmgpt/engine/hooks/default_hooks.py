"""The hooks of a run: those of its config, and the default hooks, which every run has."""

from collections.abc import Mapping, Sequence

from mmengine.hooks import CheckpointHook, EMAHook, Hook

from mmgpt.registry import HOOKS
from mmgpt.utils.choices import suggest

from .checkpoint import TrainableCheckpointHook

# MMEngine's six hooks under its names, two of them replaced by ours, then further ones of ours; hooks of equal priority
# run in this order. A config changes the arguments of a hook under its name in `default_hooks`, and turns the hook off
# by None.
DEFAULT_HOOKS = dict(
    runtime_info=dict(type="mmgpt.StepInfoHook"),
    timer=dict(type="IterTimerHook"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    logger=dict(type="LoggerHook"),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="mmgpt.TrainableCheckpointHook", interval=1),
    progress=dict(type="mmgpt.ProgressBarHook"),
    dropped_samples=dict(type="mmgpt.DroppedSamplesHook"),
    nonfinite=dict(type="mmgpt.NonFiniteHook"),
    zero_gradients=dict(type="mmgpt.ZeroGradientsHook"),
    stop_signals=dict(type="mmgpt.StopOnSignalHook"),
    model_summary=dict(type="mmgpt.ModelSummaryHook"),
    throughput=dict(type="mmgpt.ThroughputHook"),
)


def hooks_of_run(
    default_hooks: Mapping[str, Hook | dict | None] | None, custom_hooks: Sequence[Hook | dict | None] | None
) -> list[Hook | dict]:
    """All hooks of a run, built or as configs, in the order of their registration.

    DEFAULT_HOOKS are included unless `default_hooks` has None under their name. An entry of `default_hooks` without a
    `type` only changes arguments. A default hook of ours that the config lists elsewhere, in `custom_hooks` or under
    another name, is not added a second time.

    Raises:
        ValueError: `default_hooks` is not a dict, `custom_hooks` is not a list, a hook has no type, or a hook writes
            checkpoints with all frozen weights.
    """
    for name, value, kind in (("default_hooks", default_hooks, Mapping), ("custom_hooks", custom_hooks, Sequence)):
        if value is not None and (not isinstance(value, kind) or isinstance(value, str)):
            expected = "dict of hooks by name" if kind is Mapping else "list of hooks"
            raise ValueError(f"{name} is a {type(value).__name__}: it has to be a {expected}, or None")
    # 1. Collect the default hooks with the changes of the config, and the hooks that the config adds.
    named: dict[str, Hook | dict | None] = {}
    for name, hook in {**DEFAULT_HOOKS, **(default_hooks or {})}.items():
        if isinstance(hook, Mapping):
            hook = dict(hook) if "type" in hook else {**DEFAULT_HOOKS.get(name, {}), **hook}
        named[name] = hook
    custom = [hook for hook in custom_hooks or () if hook is not None]
    # 2. Leave out a default hook of ours that the config lists elsewhere.
    listed_classes = [_class(hook) for hook in custom]
    listed_classes += [_class(hook) for name, hook in named.items() if name not in DEFAULT_HOOKS and hook is not None]
    for name, hook in DEFAULT_HOOKS.items():
        if hook["type"].startswith("mmgpt.") and any(issubclass(kind, _class(hook)) for kind in listed_classes):
            named[name] = None
    hooks = [hook for hook in (*named.values(), *custom) if hook is not None]
    # 3. Refuse hooks that cannot be built, or whose checkpoints would hold all frozen weights.
    for hook in hooks:
        kind = _class(hook)
        if isinstance(hook, Mapping) and "type" not in hook:
            keys = [f"default_hooks.{name}" for name, named_hook in named.items() if named_hook is hook]
            key = keys[0] if keys else f"custom_hooks[{list(custom_hooks).index(hook)}]"
            raise ValueError(
                f"{key}={dict(hook)} has no type; without one, default_hooks takes {', '.join(DEFAULT_HOOKS)}"
            )
        if issubclass(kind, EMAHook):
            raise ValueError(
                "the config has the hook EMAHook: it averages and saves all weights, and checkpoints hold only what is "
                "trainable; leave it out"
            )
        if issubclass(kind, CheckpointHook) and not issubclass(kind, TrainableCheckpointHook):
            raise ValueError(
                f"the config has the hook {kind.__name__}: its checkpoints hold all frozen weights and pickles that "
                "are not loaded again; choose type='TrainableCheckpointHook' (default_hooks.checkpoint), which has "
                "interval, by_epoch, max_keep_ckpts, save_best and rule, too"
            )
    if not any(issubclass(_class(hook), TrainableCheckpointHook) for hook in hooks):
        hooks.append(dict(type="mmgpt.StrictLoadingHook"))
    return hooks


def disabled_hook_lines(default_hooks: Mapping[str, object] | None) -> list[str]:
    """Lines of the log about hooks that a config sets to None."""
    names = [name for name, hook in (default_hooks or {}).items() if hook is None]
    return [
        f"default_hooks.{name}=None: turned off"
        if name in DEFAULT_HOOKS
        else f"default_hooks.{name}=None: not a default hook" + suggest(name, DEFAULT_HOOKS)
        for name in names
    ]


def _class(hook: Hook | dict) -> type:
    """The class of a hook; `object` where the registry does not have it, which is an error when the hook is built."""
    kind = hook.get("type") if isinstance(hook, Mapping) else type(hook)
    kind = HOOKS.get(kind) if isinstance(kind, str) else kind
    return kind if isinstance(kind, type) else object
