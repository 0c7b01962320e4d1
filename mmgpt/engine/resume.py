"""The settings of a run, stored in its checkpoints, and their comparison with the settings of a run that resumes.

A change is of one of four kinds: free (it decides how a step is computed, logged or fed with data, not what it
computes), rebuilt (the schedule and the hyperparameters of the optimizer are computed anew from the config), foreign
(an option of a component from outside of this project, whose effect is unknown), or refused, since it would make
another run.
"""

import ast
import inspect
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from mmengine.logging import print_log
from mmengine.registry import Registry

from mmgpt import registry as registries
from mmgpt.cli.config import plain_config, without_caches
from mmgpt.cli.files import fingerprints
from mmgpt.compat.names import with_present_names
from mmgpt.utils.versions import versions

# The entries of a config that weights depend on. The others log a run (hooks, tracker, validation), evaluate (test), or
# say where and on which devices it is computed (work_dir, env_cfg, compile, model_wrapper_cfg).
COMPARED = (
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
    # This says what happens at a broken sample: the run so far met none, or replaced it, as the resumed run does.
    r"train_dataloader\..*\bon_error",
    # Data may be moved: annotation files are compared by their content.
    r"train_dataloader\..*\b(data_root|cache)",
    # Validation has no effect on training.
    r"train_cfg\.(val_begin|val_interval|dynamic_intervals)",
    # Generation is not used in training. Checkpointing and loss_chunk save memory by computing the same values twice or
    # in chunks. Cached features are what the model would compute; LoadFeatures is compared as the steps it replaces.
    r"model\.(module\.)?(generation|checkpointing|loss_chunk|feature_cache)",
    # These choose other kernels for the same step of the optimizer.
    r"optim_wrapper\.optimizer\.(foreach|fused|capturable)",
    # The random numbers stay the same; only the order of sums in kernels is fixed.
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
# The registries whose components may be foreign.
FOREIGN_REGISTRIES = (
    registries.MODELS,
    registries.DATASETS,
    registries.TRANSFORMS,
    registries.DATA_SAMPLERS,
    registries.FUNCTIONS,
)
# All registries whose components the compared entries of a config can name.
COMPONENT_REGISTRIES = (
    *FOREIGN_REGISTRIES,
    registries.OPTIMIZERS,
    registries.OPTIM_WRAPPERS,
    registries.OPTIM_WRAPPER_CONSTRUCTORS,
    registries.PARAM_SCHEDULERS,
    registries.LOOPS,
)
EMPTY = (None, {}, [])
MAX_LINES, MAX_WIDTH = 20, 200  # lines of a message, and characters of a value in it

Result = TypeVar("Result")


class Change(NamedTuple):
    """A setting whose value in the config differs from the one in the checkpoint."""

    name: str  # dotted name
    then: object
    now: object
    owner: str | None = None  # type of the component whose argument the setting is

    def matches(self, patterns: tuple[str, ...]) -> bool:
        """Whether one of the regular expressions matches the name of the setting, or of an entry that contains it."""
        return any(re.match(rf"({pattern})(?![\w])", self.name) for pattern in patterns)


class Changes(NamedTuple):
    """The accepted differences between a checkpoint and the config that resumes it; free ones are left out."""

    rebuilt: list[Change]
    foreign: list[Change]


def run_settings(cfg: Mapping) -> dict:
    """The settings that the weights of a run depend on, as plain data.

    Returns:
        config: the COMPARED entries of the config, and the number of `processes`.
        files: a fingerprint of each file and folder that these name, by the dotted name of the key.
        versions: of Python and the packages that compute.
    """
    entries = _compared_entries(cfg)
    return dict(config={**entries, "processes": get_world_size()}, files=fingerprints(entries), versions=versions())


def _compared_entries(cfg: Mapping) -> dict:
    """The COMPARED entries of a config, as plain data."""
    return {name: without_caches(plain_config(cfg[name])) for name in COMPARED if cfg.get(name) is not None}


def _settings_of_text(text: object) -> dict | None:
    """The settings in the text of a config as MMEngine writes it into checkpoints; None if it holds more than literals.

    The text is not run. It has no fingerprints of files, no versions, and not the number of processes.
    """
    try:
        assignments = [_DictCalls().visit(statement) for statement in ast.parse(text).body]
        cfg = {statement.targets[0].id: ast.literal_eval(statement.value) for statement in assignments}
        return dict(config=_compared_entries(cfg), files={})
    except (AttributeError, TypeError, ValueError, SyntaxError, MemoryError, RecursionError):
        return None


class _DictCalls(ast.NodeTransformer):
    """Replaces `dict(a=1)` and `dict({"a": 1})`, which `ast.literal_eval` refuses, by `{"a": 1}`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or len(node.args) > 1:
            return node
        if node.args:
            return node.args[0]
        return ast.Dict([ast.Constant(item.arg) for item in node.keywords], [item.value for item in node.keywords])


def compare_settings(checkpoint: Mapping, now: Mapping, source: str) -> Changes | None:
    """Compare the settings of a checkpoint with those of a run that resumes it; None where the checkpoint has none.

    Checkpoints of older versions have the text of their config instead, with which files are compared by name alone.

    Args:
        checkpoint: content of the checkpoint, of which tensors are ignored.
        now: settings of the run, see `run_settings`.
        source: name of the checkpoint, for messages.

    Raises:
        ValueError: the file is not a checkpoint of a training, a setting is refused, or the run would end before the
            batch at which the checkpoint was written.
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
    # 1. Bring the settings of the checkpoint to today's names, and fill in missing ones.
    config = {"processes": now["config"]["processes"], **with_present_names(then["config"], source)}
    # A seed that was drawn at random is in no config; where the config has none, the run keeps the seed.
    fixed_seed = (now["config"].get("randomness") or {}).get("seed") is not None
    config["randomness"] = {**(config.get("randomness") or {}), "seed": meta.get("seed") if fixed_seed else None}
    # 2. Sort the differences by kind.
    rebuilt, foreign, refused = [], [], []
    for change in _differences(config, now["config"], (then["files"], now["files"])):
        if change.matches(FREE):
            continue
        kind = rebuilt if change.matches(REBUILT) else foreign if _is_foreign(change.owner) else refused
        kind.append(change)
    if refused:
        raise ValueError(
            "\n".join(
                [
                    f"cannot resume {source}: these settings would make it another run:",
                    *(f"  {line}" for line in change_lines(refused)),
                    "Set them as they were, or start another run from its weights: without --resume, by "
                    f"--cfg-options load_from={source}",
                ]
            )
        )
    _check_end(meta, loop, source)
    return Changes(rebuilt, foreign)


def on_main_process(function: Callable[[], Result]) -> Result:
    """The result of a function that only the first process runs, or the error that it raises, in all processes.

    All processes call it. Only the first one reads files, since they may appear later in the others, or not at all.
    """
    outcome: list = [None]
    if is_main_process():
        try:
            outcome = [function()]
        except Exception as error:
            if get_world_size() == 1:
                raise
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def log_changes(changes: Changes | None, meta: Mapping) -> None:
    """Log the differences between the settings of a checkpoint and those that it is resumed with."""
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
    for line in change_lines(changes.rebuilt):
        print_log(f"Resumed with another setting, for which schedule and optimizer are rebuilt: {line}", "current")
    for line in change_lines(changes.foreign):
        print_log(
            "Resumed with another setting of a component that is not mmgpt's; whether the run stays the same is "
            f"unknown: {line}",
            "current",
            logging.WARNING,
        )
    before, now = meta["settings"]["versions"] if "settings" in meta else {}, versions()
    others = [f"{name} {before.get(name)} then, {now.get(name)} now" for name in now if before.get(name) != now[name]]
    if before and others:
        print_log(f"Resumed with other versions, equal up to rounding at best: {'; '.join(others)}", "current")


def log_new_run(checkpoint: dict, cfg: Mapping, source: str) -> None:
    """Log how the model of a new run differs from that of the checkpoint whose weights it starts from."""
    settings = (checkpoint.get("meta") or {}).pop("settings", None)
    if settings is not None:
        then, now = ({"model": model} for model in (settings["config"].get("model"), plain_config(cfg["model"])))
        changes = [change for change in _differences(then, now, ({}, {})) if not change.matches(FREE)]
        for line in change_lines(changes):
            print_log(f"Another run starts from the weights of {source}, whose model had {line}", "current")


def change_lines(changes: Sequence[Change]) -> list[str]:
    """A line for each changed setting; settings that one variable has changed in many entries share a line."""
    names: dict[tuple[str, str, str], list[str]] = {}
    for name, then, now, _ in changes:
        texts = (text if len(text) <= MAX_WIDTH else f"{text[:MAX_WIDTH]} ..." for text in (repr(then), repr(now)))
        names.setdefault((name.rpartition(".")[2], *texts), []).append(name)
    lines = [
        f"{min(settings, key=len)}{f' and {len(settings) - 1} more' * (len(settings) > 1)}: {then} then, {now} now"
        for (_, then, now), settings in names.items()
    ]
    return lines[:MAX_LINES] + [f"and {len(lines) - MAX_LINES} more"] * (len(lines) > MAX_LINES)


def _check_end(meta: Mapping, loop: Mapping, source: str) -> None:
    """Raise a ValueError if the training loop of the config would end before the batch of a checkpoint."""
    batches, length = meta["iter"], meta.get("epoch_length")
    for name in ("max_epochs", "max_iters"):
        if not isinstance(loop.get(name, 0), (int, float)):
            raise ValueError(f"cannot resume {source}: train_cfg.{name}={loop[name]!r} is not a number")
    epochs = loop.get("max_epochs")
    last = epochs * length if epochs is not None and length else loop.get("max_iters")
    if last is None or batches <= last:
        return
    setting = f"max_iters={last}" if epochs is None else f"max_epochs={epochs}"
    raise ValueError(
        f"cannot resume {source}: {batches} batches are done, and with {setting} the run ends after {last}: nothing is "
        "left to train; set more, or resume an older checkpoint"
    )


def _differences(
    then: object, now: object, files: tuple[Mapping, Mapping], name: str = "", owner: str | None = None
) -> Iterator[Change]:
    """Yield the differences between two plain configs, whose files have these fingerprints.

    A missing key has the default value of the component, or None. None, {} and [] are equal. Lists of unequal lengths
    differ as a whole. Where the types of two components differ, keys that only one of them has are left out.
    """
    if isinstance(then or now, dict) and isinstance(now or then, dict):
        then, now = then or {}, now or {}
        owner = now.get("type", owner)
        same_type, defaults = _same_type(then.get("type"), now.get("type")), _defaults(now.get("type"))
        for key in {**then, **now}:
            both = key in then and key in now
            filled = [config.get(key, defaults.get(key)) for config in (then, now)]
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
        # A folder of images, and any file of a checkpoint without fingerprints, is compared by its own name, since its
        # parent folder may have moved.
        if os.path.basename(then.rstrip("/")) != os.path.basename(now.rstrip("/")):
            yield Change(name, then, now, owner)
    elif then != now:
        yield Change(name, then, now, owner)


def _is_foreign(name: str | None) -> bool:
    """Whether a type was registered from outside of this project, and is not derived from a class of ours."""
    component = _component(name, FOREIGN_REGISTRIES)
    if component is None:
        return False
    packages = [base.__module__.partition(".")[0] for base in getattr(component, "__mro__", [component])]
    return "mmgpt" not in packages and packages[0] != "mmengine"


def _same_type(then: str | None, now: str | None) -> bool:
    """Whether two names stand for the same component, such as 'LoRAModel' and 'mmgpt.LoRAModel'."""
    component = _component(then)
    return then == now or (component is not None and component is _component(now))


def _defaults(name: str | None) -> dict:
    """The default values of the arguments of a registered component, as plain data; {} if there is no such component.

    They include the defaults of the classes that it is derived from, to which it may pass arguments on, but no `seed`:
    a sampler or a dataset of a mixture without one gets the seed of the run or of the mixture.
    """
    component = _component(name)
    if component is None:
        return {}
    functions = [base.__init__ for base in reversed(component.__mro__)] if inspect.isclass(component) else [component]
    parameters = [item for function in functions for item in inspect.signature(function).parameters.values()]
    defaults = {item.name: plain_config(item.default) for item in parameters if item.default is not item.empty}
    return {name: value for name, value in defaults.items() if name != "seed"}


def _component(name: str | None, candidates: Sequence[Registry] = COMPONENT_REGISTRIES) -> Callable | None:
    """The component registered under a name with or without a scope, or whose full name this is.

    Only the modules of the registries are imported for it, since the name may come from a checkpoint.
    """
    key = (name or "").rpartition(".")[2]
    for registry in candidates:
        registry.import_from_location()
        for level in (registry, registry.parent):
            component = level.module_dict.get(key)
            full_name = component and f"{component.__module__}.{component.__qualname__}"
            if component is not None and name in (key, f"{level.scope}.{key}", full_name):
                return component
    return None
