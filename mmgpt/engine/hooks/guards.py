"""The hooks of a run: those of its config, and the ones that every run has whatever its config says."""

from collections.abc import Mapping, Sequence

from mmengine.hooks import CheckpointHook, EMAHook, Hook

from mmgpt.cli.config import suggest
from mmgpt.engine.checkpoint import TrainableCheckpointHook
from mmgpt.registry import HOOKS

# MMEngine's six under its names, two of them in our form, then our own; equal priorities run in this order. A config
# changes one under its name in `default_hooks`, and turns it off by None.
EVERY_RUN = dict(
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


@HOOKS.register_module()
class StrictLoadingHook(Hook):
    """The strict loading of TrainableCheckpointHook, for a run that writes no checkpoints.

    A checkpoint that is saved by hand all the same holds what was trained, as plain data.
    """

    after_load_checkpoint = TrainableCheckpointHook.after_load_checkpoint
    before_save_checkpoint = TrainableCheckpointHook.before_save_checkpoint


def hooks_of_run(
    default_hooks: Mapping[str, Hook | dict | None] | None, custom_hooks: Sequence[Hook | dict | None] | None
) -> list[Hook | dict]:
    """All hooks of a run, built or as configs, in the order of their registration.

    Those of EVERY_RUN are there unless `default_hooks` has None under their name. An entry there without a `type`
    changes arguments alone. One of our own that the config lists elsewhere, in `custom_hooks` or under another name, is
    not added a second time.

    Raises:
        ValueError: `default_hooks` is not a dict, `custom_hooks` is not a list, a hook has no type, or it writes
            checkpoints that hold the frozen weights, and pickles.
    """
    for name, value, kind in (("default_hooks", default_hooks, Mapping), ("custom_hooks", custom_hooks, Sequence)):
        if value is not None and (not isinstance(value, kind) or isinstance(value, str)):
            expected = "dict of hooks by name" if kind is Mapping else "list of hooks"
            raise ValueError(f"{name} is a {type(value).__name__}: it has to be a {expected}, or None")
    named = {name: _with_type(name, hook) for name, hook in {**EVERY_RUN, **(default_hooks or {})}.items()}
    custom = [hook for hook in custom_hooks or () if hook is not None]
    elsewhere = [_class(hook) for hook in custom]
    elsewhere += [_class(hook) for name, hook in named.items() if name not in EVERY_RUN and hook is not None]
    for name, hook in EVERY_RUN.items():
        if hook["type"].startswith("mmgpt.") and any(issubclass(each, _class(hook)) for each in elsewhere):
            named[name] = None
    hooks = [hook for hook in (*named.values(), *custom) if hook is not None]
    for hook in hooks:
        if isinstance(hook, Mapping) and "type" not in hook:
            names = [f"default_hooks.{name}" for name, each in named.items() if each is hook]
            place = names[0] if names else f"custom_hooks[{list(custom_hooks).index(hook)}]"
            raise ValueError(
                f"{place}={dict(hook)} has no type; without one, default_hooks takes {', '.join(EVERY_RUN)}"
            )
        if issubclass(_class(hook), EMAHook):
            raise ValueError(
                "the config has the hook EMAHook: it averages and saves all weights, and checkpoints hold only what is "
                "trained; leave it out"
            )
        if issubclass(_class(hook), CheckpointHook) and not issubclass(_class(hook), TrainableCheckpointHook):
            raise ValueError(
                f"the config has the hook {_class(hook).__name__}: its checkpoints hold all frozen weights and pickles "
                "that are not loaded again; choose type='TrainableCheckpointHook' (default_hooks.checkpoint), which "
                "has interval, by_epoch, max_keep_ckpts, save_best and rule, too"
            )
    if not any(issubclass(_class(hook), TrainableCheckpointHook) for hook in hooks):
        hooks.append(dict(type="mmgpt.StrictLoadingHook"))
    return hooks


def turned_off(default_hooks: Mapping[str, object] | None) -> list[str]:
    """Lines of a log about the names under which a config has None."""
    names = [name for name, hook in (default_hooks or {}).items() if hook is None]
    return [
        f"default_hooks.{name}=None: turned off"
        if name in EVERY_RUN
        else f"default_hooks.{name}=None: not a hook that every run has" + suggest(name, EVERY_RUN)
        for name in names
    ]


def _with_type(name: str, hook: Hook | dict | None) -> Hook | dict | None:
    if isinstance(hook, Mapping):
        return dict(hook) if "type" in hook else {**EVERY_RUN.get(name, {}), **hook}
    return hook


def _class(hook: Hook | dict) -> type:
    """The class of a hook; `object` where the registry does not know it, which building it will tell."""
    kind = hook.get("type") if isinstance(hook, Mapping) else type(hook)
    found = HOOKS.get(kind) if isinstance(kind, str) else kind
    return found if isinstance(found, type) else object
