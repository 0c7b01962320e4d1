"""Reading a config: inheritance, ``--cfg-options``, and the variables that ``'${name}'`` refers to."""

import difflib
import inspect
import json
import os
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config

from .description import exported_folder, read_description
from .variables import VARIABLE

# What MMEngine's Runner reads from a config although its constructor has no argument of that name.
RUNNER_KEYS = {"compile", "model_wrapper_cfg", "activation_checkpointing", "sync_bn"}


def suggest(value: str, choices: Iterable[str]) -> str:
    """The end of an error message about an unknown ``value``: the nearest of ``choices``, then all of them."""
    choices = sorted(choices)
    near = difflib.get_close_matches(value, choices, n=1)
    return (f"; did you mean {near[0]!r}?" if near else "") + f" Choices: {', '.join(choices)}"


def load_config(path: str | os.PathLike, options: dict | None = None, trust: bool = False) -> Config:
    """A config file with its bases merged, ``options`` merged over it, and every ``'${name}'`` replaced.

    Args:
        path: Python config file, which is run; or a folder that `export` or `merge` wrote, which is data (see
            `read_description`, also for `trust`).
        options: dotted names to values, as ``--cfg-options`` gives them. They are merged before the variables are
            replaced, so an option that sets a variable reaches every place that refers to it. An option that leads
            through a ``'${name}'`` sets that variable: 'model.lora.r' is 'lora.r'. Undotted ones are merged first.

    A name may have variables in it: with `benchmark = 'okvqa'`, ``'${eval_${benchmark}}'`` is ``'${eval_okvqa}'``.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or as `read_description` says.
        KeyError: an option or a ``'${name}'`` names nothing in the config.
    """
    folder = exported_folder(path)
    if folder is None:
        check_exists(path)
    cfg = Config.fromfile(path) if folder is None else read_description(folder, trust)
    for option in sorted(options or {}, key=lambda option: "." in option):
        followed = {_follow(cfg, option): options[option]}
        _check_options(cfg, followed)
        cfg.merge_from_dict(followed)
    values = cfg.to_dict()
    resolved = {key: _resolve(value, values, key, ()) for key, value in values.items()}
    # MMEngine writes the config down four times as a run starts; yapf would take a second or more to lay each out.
    return Config(resolved, cfg_text=cfg.text, filename=cfg.filename, format_python_code=False)


def plain_config(part: object) -> object:
    """A part of a config as JSON has it: dicts, lists, strings and numbers; classes and functions by their names."""
    return json.loads(json.dumps(part, default=lambda thing: getattr(thing, "__name__", str(thing))))


def check_exists(path: str | os.PathLike) -> None:
    """Raises a FileNotFoundError, with what is beside it, when there is no such config file."""
    if Path(path).is_file():
        return
    folder = Path(path).parent
    others = suggest(Path(path).name, [file.name for file in folder.glob("*.py")]) if folder.is_dir() else ""
    raise FileNotFoundError(f"there is no config file {str(path)!r}" + others)


def _follow(cfg: Config, option: str, seen: tuple[str, ...] = ()) -> str:
    """The dotted ``option`` from the variable on that stands on its way through ``cfg``; itself if there is none.

    ``seen`` are the variables followed so far, to find circles.
    """
    value, (*names, last) = cfg, option.split(".")
    for i, name in enumerate(names):
        if isinstance(value, (list, tuple)):
            value = value[int(name)] if name.isdigit() and int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, (dict, Config)) else None
        whole = VARIABLE.fullmatch(_spelt(value, cfg)) if isinstance(value, str) else None
        if whole:
            _no_circle(whole[1], seen)
            return _follow(cfg, ".".join([whole[1], *names[i + 1 :], last]), (*seen, whole[1]))
    return option


def _spelt(value: str, cfg: Config) -> str:
    """``'${eval_${benchmark}}'`` with the name that it stands for: ``'${eval_okvqa}'``; any ``'${name}'`` stays."""
    return value if VARIABLE.fullmatch(value) else VARIABLE.sub(lambda match: str(cfg.get(match[1])), value)


def _check_options(cfg: Config, options: dict) -> None:
    """Refuse an option whose first name is neither in the config nor read by the Runner: it would do nothing."""
    for name, option in ((option.split(".")[0], option) for option in options):
        if name in {*cfg, *RUNNER_KEYS}:
            continue
        # Brings torch: not before it has to tell.
        from mmengine.runner import Runner

        known = set(cfg) | set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} | RUNNER_KEYS
        if name not in known:
            raise KeyError(f"--cfg-options {option}: the config has no {name!r}" + suggest(name, known))


def _resolve(value: object, values: dict, place: str, seen: tuple[str, ...]) -> object:
    """``value`` with each ``'${name}'`` in it replaced by ``values[name]``, itself resolved.

    ``place`` is the dotted name of the value, for messages; ``seen`` the variables being resolved, to find circles.
    """
    if isinstance(value, dict):
        return {key: _resolve(item, values, f"{place}.{key}", seen) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_resolve(item, values, f"{place}[{i}]", seen) for i, item in enumerate(value))
    if not isinstance(value, str):
        return value
    whole = VARIABLE.fullmatch(value)
    if whole:
        return _variable(whole[1], values, place, seen)
    filled = VARIABLE.sub(lambda match: str(_variable(match[1], values, place, seen)), value)
    # A name that had variables in it is one now.
    return _resolve(filled, values, place, seen) if VARIABLE.search(filled) else filled


def _variable(name: str, values: dict, place: str, seen: tuple[str, ...]) -> object:
    if name not in values:
        # Of one kind, such as eval_..., where there are any.
        alike = [known for known in values if known.startswith(name.partition("_")[0] + "_")]
        raise KeyError(
            f"{place} refers to '${{{name}}}', which the config does not set" + suggest(name, alike or values)
        )
    _no_circle(name, seen)
    return _resolve(deepcopy(values[name]), values, name, (*seen, name))


def _no_circle(name: str, seen: tuple[str, ...]) -> None:
    if name in seen:
        raise ValueError(f"the config variables {' -> '.join((*seen, name))} refer to each other in a circle")
