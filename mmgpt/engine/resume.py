"""The settings of a run, kept in its checkpoints, and what of them may change when it is resumed.

A change is one of four: free (it decides how a step is computed, watched or read, not what it computes), rebuilt (the
schedule and the rates of the optimizer are computed anew from the config), not ours to judge (an option of a component
of somebody else's), or refused, since it would make another run.
"""

import ast
import inspect
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import ParamSchedulerHook
from mmengine.logging import print_log
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmgpt import registry as registries
from mmgpt.cli.config import plain_config
from mmgpt.cli.files import fingerprints
from mmgpt.compat.names import with_present_names
from mmgpt.utils.versions import versions

# The parts of a config that weights depend on. The others watch a run (hooks, log, tracker, validation), evaluate
# (test), or say where and on which devices it is computed (work_dir, env_cfg, compile, how processes share a model).
CONFIG_PARTS = (
    "model",
    "data_preprocessor",
    "train_dataloader",
    "optim_wrapper",
    "param_scheduler",
    "auto_scale_lr",
    "train_cfg",
    "randomness",
    "sync_bn",
    "efficient_conv_bn_eval",
)
FREE = (
    # These say which processes read the batches, and how far ahead; the batches are the same.
    r"train_dataloader\.(num_workers|prefetch_factor|persistent_workers|pin_memory|timeout|multiprocessing_context)",
    # This says what happens at a broken sample. The run has met none so far, or has replaced it as it goes on to do.
    r"train_dataloader\..*\bon_error",
    # Data may be moved: annotation files are compared by their content.
    r"train_dataloader\..*\b(data_root|cache)",
    # Validation changes nothing in training.
    r"train_cfg\.(val_begin|val_interval|dynamic_intervals)",
    # Generation is not used in training. Checkpointing and loss_chunk save memory by computing the same twice or in
    # parts. Cached features are what the model would compute; the steps that read them are compared as those that they
    # stand for.
    r"model\.(module\.)?(generation|checkpointing|loss_chunk|feature_cache)",
    # These choose other kernels for the same step of the optimizer.
    r"optim_wrapper\.optimizer\.(foreign|fused|capturable)",
    # What is drawn stays the same; the kernels add up in a fixed order.
    r"randomness\.deterministic",
)
HYPERPARAMETERS = ("lr", "weight_decay", "betas", "eps", "momentum")
REBUILT = (
    r"train_cfg\.max_(epochs|iters)",
    r"param_scheduler",
    r"auto_scale_lr",
    r"optim_wrapper\.clip_grad",
    rf"optim_wrapper\.optimizer\.({'|'.join(HYPERPARAMETERS)})",
)
OURS = (registries.MODELS, registries.DATASETS, registries.TRANSFORMS, registries.DATA_SAMPLERS, registries.FUNCTIONS)
# All registries whose components the compared parts of a config can name.
COMPONENTS = (
    *OURS,
    registries.OPTIMIZERS,
    registries.OPTIM_WRAPPERS,
    registries.OPTIM_WRAPPER_CONSTRUCTORS,
    registries.PARAM_SCHEDULERS,
    registries.LOOPS,
)
EMPTY = (None, {}, [])
SHOWN, WIDTH = 20, 200  # lines of a message, characters of a value


class Change(NamedTuple):
    """A setting by its dotted name, its value in the checkpoint and in the config, and the type that it belongs to."""

    name: str
    then: object
    now: object
    owner: str | None = None

    def is_one_of(self, patterns: tuple[str, ...]) -> bool:
        """Whether one of some regular expressions names the setting, or what it is a part of."""
        return any(re.match(rf"({pattern})(?![\w])", self.name) for pattern in patterns)


class Changes(NamedTuple):
    """What differs between a checkpoint and a config that goes on from it."""

    rebuilt: list[Change]
    foreign: list[Change]


def run_settings(cfg: Mapping) -> dict:
    """What the weights of a run depend on, as plain data.

    Returns:
        config: the CONFIG_PARTS of it, and the number of `processes`.
        files: a fingerprint of each file and folder that these name, by the dotted name of the key.
        versions: of the packages that compute.
    """
    parts = _compared_parts(cfg)
    return dict(config={**parts, "processes": get_world_size()}, files=fingerprints(parts), versions=versions())


def _compared_parts(cfg: Mapping) -> dict:
    return {name: _uncached(plain_config(cfg[name])) for name in CONFIG_PARTS if cfg.get(name) is not None}


def _settings_of_text(text: object) -> dict | None:
    """The settings in the text of a config as MMEngine writes it into checkpoints; None if it holds more than literals.

    Nothing in it is run. It says nothing about the content of files, versions, and the number of processes.
    """
    try:
        assignments = [_DictCalls().visit(line) for line in ast.parse(text).body]
        cfg = {line.targets[0].id: ast.literal_eval(line.value) for line in assignments}
        return dict(config=_compared_parts(cfg), files={})
    except (AttributeError, TypeError, ValueError, SyntaxError, MemoryError, RecursionError):
        return None


class _DictCalls(ast.NodeTransformer):
    """Puts `{"a": 1}` in the place of `dict(a=1)` and `dict({"a": 1})`, which `ast.literal_eval` does not take."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or len(node.args) > 1:
            return node
        named = ast.Dict([ast.Constant(each.arg) for each in node.keywords], [each.value for each in node.keywords])
        return node.args[0] if node.args else named


def _uncached(part: object) -> object:
    """A plain part of a config with the steps that each LoadFeatures stands for in its place: its images are theirs."""
    if isinstance(part, dict):
        return {key: _uncached(value) for key, value in part.items()}
    if not isinstance(part, list):
        return part
    cached = [isinstance(step, dict) and _same_type(step.get("type"), "LoadFeatures") for step in part]
    steps = [step["steps"] if hit else [step] for step, hit in zip(part, cached, strict=True)]
    return [_uncached(step) for several in steps for step in several]


def changes(checkpoint: Mapping, now: Mapping, source: str) -> Changes | None:
    """What differs between the settings of a checkpoint and those of now; None where the checkpoint has none.

    Checkpoints of older versions have the text of their config instead, with which files are compared by name alone.

    Args:
        checkpoint: its content, of which tensors are not looked at.
        now: as `run_settings` gives them.
        source: its name, for messages.

    Raises:
        ValueError: the file is not a checkpoint of a training, a setting differs that makes another run, or the run
            would end before the batch at which the checkpoint was written.
    """
    if "optimizer" not in checkpoint or "meta" not in checkpoint:
        raise ValueError(
            f"cannot resume {source}: it is not a checkpoint of tools/train.py; give it as load_from to start from it"
        )
    meta, loop = checkpoint["meta"], now["config"].get("train_cfg") or {}
    then = meta.get("settings") or _settings_of_text(meta.get("cfg"))
    if then is None:
        _check_end(meta, loop, source)
        return None
    then = {**then, "config": with_present_names(then["config"], source)}
    # A seed that was drawn by chance is in no config; where none is asked for, the run goes on with it.
    was, is_now = (each["config"].get("randomness") or {} for each in (then, now))
    known = {"processes": now["config"]["processes"], **then["config"]}
    drawn = {"randomness": {**was, "seed": meta.get("seed") if is_now.get("seed") is not None else None}}
    differing = _differences({**known, **drawn}, now["config"], (then["files"], now["files"]))
    differing = [each for each in differing if not each.is_one_of(FREE)]
    rebuilt = [each for each in differing if each.is_one_of(REBUILT)]
    foreign = [each for each in differing if each not in rebuilt and _is_foreign(each.owner)]
    refused = [each for each in differing if each not in rebuilt + foreign]
    if refused:
        raise ValueError(
            "\n".join(
                [
                    f"cannot resume {source}: these settings would make it another run:",
                    *(f"  {line}" for line in lines(refused)),
                    "Set them as they were, or start another run from its weights: without --resume, by "
                    f"--cfg-options load_from={source}",
                ]
            )
        )
    _check_end(meta, loop, source)
    return Changes(rebuilt, foreign)


def agreed(judge: Callable[[], Changes | None]) -> Changes | None:
    """What the first process finds, handed to all of them; an error that it ends in is raised in all of them.

    All processes call it, and only the first reads files: the others may see them later, or not at all.
    """
    told: list = [None]
    if is_main_process():
        try:
            told = [judge()]
        except Exception as error:
            if get_world_size() == 1:
                raise
            told = [error]
    broadcast_object_list(told)
    if isinstance(told[0], Exception):
        raise told[0]
    return told[0]


def tell(changes: Changes | None, meta: Mapping) -> None:
    """Log what differs between the settings of a checkpoint and those that it is resumed with."""
    if "settings" not in meta:
        compared = (
            "they are compared by the text of its config, without the content of files and the versions of packages"
        )
        print_log(
            "The checkpoint does not hold the settings of its run (an older version wrote it): "
            f"{'they cannot be compared' if changes is None else compared}; schedule and optimizer follow this config.",
            "current",
            logging.WARNING,
        )
    if changes is None:
        return
    for line in lines(changes.rebuilt):
        print_log(f"Resumed with another setting, by which schedule and optimizer are rebuilt: {line}", "current")
    for line in lines(changes.foreign):
        print_log(
            f"Resumed with another setting of a component that is not mmgpt's; whether the run stays the same is not "
            f"known: {line}",
            "current",
            logging.WARNING,
        )
    before, now = meta["settings"]["versions"] if "settings" in meta else {}, versions()
    other = [f"{name} {before.get(name)} then, {now.get(name)} now" for name in now if before.get(name) != now[name]]
    if before and other:
        print_log(f"Resumed by other versions, equal up to rounding at best: {'; '.join(other)}", "current")


def tell_new_run(checkpoint: dict, cfg: Mapping, source: str) -> None:
    """Log how the model of a new run differs from that of the checkpoint whose weights it starts from."""
    kept = (checkpoint.get("meta") or {}).pop("settings", None)
    if kept is not None:
        parts = ({"model": part} for part in (kept["config"].get("model"), plain_config(cfg["model"])))
        for line in lines([each for each in _differences(*parts, ({}, {})) if not each.is_one_of(FREE)]):
            print_log(f"Another run starts from the weights of {source}, whose model had {line}", "current")


def rebuild(runner: Runner, checkpoint: dict, changes: Changes | None) -> None:
    """Put the schedule and the hyperparameters that a run's config has at this batch into a checkpoint, if they differ.

    The schedulers of `runner`, which are at their start, are stepped through all batches that are done: MMEngine's
    compute each rate from the one before. Where they count epochs, the same is done after a checkpoint that was written
    at the last batch of an epoch, before the schedule's step at the end of it.

    Raises:
        ValueError: a scheduler follows the results of validation, of which the checkpoint has none.
    """
    done, length = checkpoint["meta"]["iter"], len(runner.train_dataloader)
    by_epoch, schedulers = isinstance(runner.train_loop, EpochBasedTrainLoop), runner.param_schedulers or []
    behind = by_epoch and checkpoint["meta"]["epoch"] < done // length and any(each.by_epoch for each in schedulers)
    # default_hooks.param_scheduler was turned on or off.
    turned = len(schedulers) != len(checkpoint.get("param_schedulers") or [])
    if "settings" in checkpoint["meta"] and not changes.rebuilt and not behind and not turned:
        return
    if any(getattr(scheduler, "need_val_args", False) for scheduler in schedulers):
        reasons = ["default_hooks.param_scheduler was turned off"] if turned else []
        reasons += lines(changes.rebuilt) if changes is not None else []
        if reasons:
            raise ValueError(
                f"a schedule that follows validation cannot be rebuilt for other settings: {'; '.join(reasons)}"
            )
        return
    hooks = [hook for hook in runner.hooks if isinstance(hook, ParamSchedulerHook)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `scheduler.step")
        for batch in range(done):
            for hook in hooks:
                hook.after_train_iter(runner, batch)
                if by_epoch and (batch + 1) % length == 0:
                    hook.after_train_epoch(runner)
    checkpoint["param_schedulers"] = [scheduler.state_dict() for scheduler in schedulers]
    names = {*HYPERPARAMETERS, *(scheduler.param_name for scheduler in schedulers)}
    names |= {f"initial_{name}" for name in names}
    state, groups = checkpoint["optimizer"], runner.optim_wrapper.param_groups
    # Where there are several groups, MMEngine schedules settings of none besides.
    kept = [*state["param_groups"], *([state["base_param_settings"]] if "base_param_settings" in state else [])]
    before = kept[0]["lr"]
    for values, group in zip(kept, groups, strict=False):
        values.update({name: value for name, value in group.items() if name in names})
    print_log(
        f"The learning rate after {done} batches is {kept[0]['lr']:.4g} ({before:.4g} in the checkpoint).", "current"
    )


def lines(differing: list[Change]) -> list[str]:
    """A line for each setting that differs; settings that one variable has changed in many places share a line."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for name, then, now, _ in differing:
        alike.setdefault((name.rpartition(".")[2], _short(then), _short(now)), []).append(name)
    found = [
        f"{min(names, key=len)}{f' and {len(names) - 1} more' * (len(names) > 1)}: {then} then, {now} now"
        for (_, then, now), names in alike.items()
    ]
    return found[:SHOWN] + [f"and {len(found) - SHOWN} more"] * (len(found) > SHOWN)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= WIDTH else f"{text[:WIDTH]} ..."


def _check_end(meta: Mapping, loop: Mapping, source: str) -> None:
    """Raise a ValueError if a training loop of this config would have ended before the place of a checkpoint."""
    done, length = meta["iter"], meta.get("epoch_length")
    epochs = loop.get("max_epochs")
    last = epochs * length if epochs is not None and length else loop.get("max_iters")
    if last is None or done <= last:
        return
    setting = f"max_iters={last}" if epochs is None else f"max_epochs={epochs}"
    raise ValueError(
        f"cannot resume {source}: {done} batches are done, and with {setting} the run ends after {last}: nothing is "
        "left to train; set more, or resume an older checkpoint"
    )


def _differences(
    then: object, now: object, files: tuple[Mapping, Mapping], name: str = "", owner: str | None = None
) -> Iterator[Change]:
    """What differs within two plain configs, whose files have these fingerprints.

    A key that is missing counts as the default of the component, or as None. None, {} and [] are the same. Lists of
    other lengths differ as a whole. If the types of two parts differ, the keys that only one of them has are left out.
    """
    if isinstance(then or now, dict) and isinstance(now or then, dict):
        then, now = then or {}, now or {}
        owner = now.get("type", owner)
        same_type, defaults = _same_type(then.get("type"), now.get("type")), _defaults(now.get("type"))
        for key in {**then, **now}:
            both = key in then and key in now
            filled = [part.get(key, defaults.get(key)) for part in (then, now)]
            if all(value in EMPTY for value in filled) or (not both and filled[0] == filled[1]):
                continue
            if not same_type if key == "type" else same_type or both:
                yield from _differences(then.get(key), now.get(key), files, f"{name}.{key}".lstrip("."), owner)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for i, pair in enumerate(zip(then, now, strict=True)):
            yield from _differences(*pair, files, f"{name}[{i}]", owner)
    elif name in files[0] and name in files[1]:
        if files[0][name] != files[1][name]:
            yield Change(name, then, f"{now}, with other content", owner)
    elif ("data_prefix." in name or (name in files[1] and not files[0])) and then and now:
        # A folder of images, and any file of a checkpoint without fingerprints, is known by its own name: it may lie
        # elsewhere.
        if os.path.basename(then.rstrip("/")) != os.path.basename(now.rstrip("/")):
            yield Change(name, then, now, owner)
    elif then != now:
        yield Change(name, then, now, owner)


def _is_foreign(name: str | None) -> bool:
    """Whether a type that configs name was registered by somebody else, and is not derived from a class of ours."""
    found = _component(name, OURS)
    packages = [each.__module__.partition(".")[0] for each in getattr(found, "__mro__", [found])] if found else []
    return found is not None and "mmgpt" not in packages and packages[0] != "mmengine"


def _same_type(then: str | None, now: str | None) -> bool:
    """Whether two names stand for the same component, such as 'LoRAModel' and 'mmgpt.LoRAModel'."""
    found = _component(then)
    return then == now or (found is not None and found is _component(now))


def _defaults(name: str | None) -> dict:
    """The default values of the arguments of a registered component, as plain data; {} if there is no such component.

    They include the defaults of the classes that it is derived from, to which it may pass arguments on, but no `seed`:
    a sampler or a part of a joint dataset without one gets that of the run or of the whole.
    """
    found = _component(name)
    if found is None:
        return {}
    made = [each.__init__ for each in reversed(found.__mro__)] if inspect.isclass(found) else [found]
    parameters = [each for one in made for each in inspect.signature(one).parameters.values()]
    defaults = {each.name: plain_config(each.default) for each in parameters if each.default is not each.empty}
    return {name: value for name, value in defaults.items() if name != "seed"}


def _component(name: str | None, among: Sequence[Registry] = COMPONENTS) -> Callable | None:
    """What is registered under a name with or without a scope, or has this full name.

    Only the modules of the registries are imported for it, since the name may be that of a checkpoint.
    """
    key = (name or "").rpartition(".")[2]
    for registry in among:
        registry.import_from_location()
        for each in (registry, registry.parent):
            found = each.module_dict.get(key)
            full = found and f"{found.__module__}.{found.__qualname__}"
            if found is not None and name in (key, f"{each.scope}.{key}", full):
                return found
    return None
