"""Reading a config: inheritance, ``--cfg-options``, and the variables that ``'${name}'`` refers to."""

import difflib
import inspect
import json
import keyword
import os
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path

from mmengine.config import Config

from mmgpt.compat.names import with_present_names
from mmgpt.utils.config_variables import VARIABLE

from .config_file import read_config
from .config_text import DEEPEST, WIDTH, PlainConfig, plain_value
from .description import exported_folder, is_exported, read_description

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
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
        ValueError: the file cannot be read, or a value cannot be written down with the results; says where.
    """
    folder = exported_folder(path)
    if folder is None or (not is_exported(folder) and any(folder.glob("*.py"))):
        check_exists(path)
    cfg = read_config(path) if folder is None else read_description(folder, trust)
    for option in sorted(options or {}, key=lambda option: "." in option):
        followed = _follow(cfg, option)
        _check_option(cfg, followed)
        _merge(cfg, followed, options[option])
    values = with_present_names(cfg.to_dict(), path)
    for name in values:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"{path}: {name!r} cannot be the name of a variable in a config")
    resolved = {key: _resolve(value, values, key, ()) for key, value in values.items()}
    return PlainConfig(resolved, cfg_text=cfg.text, filename=cfg.filename)


def flamingo_config(cfg: Mapping) -> dict:
    """The config of the Flamingo that an experiment's model is, or that its LoRAModel wraps."""
    return cfg["model"].get("module", cfg["model"])


def plain_config(part: object) -> object:
    """A part of a config as JSON has it: dicts, lists, strings and numbers.

    Classes and functions are their full names, a partial is its function and arguments, and any other object its text.
    """
    return json.loads(json.dumps(part, default=_described))


def _described(thing: object) -> object:
    """An object in words that are the same in every process: no address in memory is part of them."""
    if isinstance(thing, (set, frozenset)):
        return sorted(thing, key=repr)
    if isinstance(thing, partial):
        return {"partial": thing.func, "args": thing.args, **thing.keywords}
    if hasattr(thing, "__qualname__"):
        return f"{thing.__module__}.{thing.__qualname__}"
    text = str(thing)
    return type(thing) if ADDRESS.search(text) else text


def check_exists(path: str | os.PathLike) -> None:
    """Raises a FileNotFoundError, with what is beside or in it, when there is no such config file."""
    path = Path(path)
    if path.is_file():
        return
    folder, slashes = path if path.is_dir() else path.parent, Path(str(path).replace("\\", "/"))
    others = suggest(path.name, [file.name for file in folder.glob("*.py")]) if folder.is_dir() else ""
    if path.is_dir():
        raise FileNotFoundError(f"{str(path)!r} is a folder, not a config file." + others)
    others = f"; did you mean {str(slashes)!r}?" if slashes.is_file() else others
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


def _check_option(cfg: Config, option: str) -> None:
    """Refuse an option whose first name is neither in the config nor read by the Runner: it would do nothing."""
    name = option.split(".")[0]
    if name in {*cfg, *RUNNER_KEYS}:
        return
    # Brings torch: not before it has to tell.
    from mmengine.runner import Runner

    known = set(cfg) | set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} | RUNNER_KEYS
    if name not in known:
        raise KeyError(f"--cfg-options {option}: the config has no {name!r}" + suggest(name, known))


def _merge(cfg: Config, option: str, value: object) -> None:
    """Put a value into ``cfg``; a dict goes into the dict that is there, and replaces anything else.

    Raises:
        ValueError: the option leads through a value that has no names, or no such place.
    """
    attempts = [value, {**value, "_delete_": True}] if isinstance(value, dict) else [value]
    for i, attempt in enumerate(attempts, start=1):
        try:
            return cfg.merge_from_dict({option: attempt})
        except (TypeError, KeyError, AttributeError) as error:
            if i == len(attempts):
                raise ValueError(f"--cfg-options {option}: {error.args[0]}") from error


def _resolve(value: object, values: dict, place: str, seen: tuple[str, ...]) -> object:
    """``value`` with each ``'${name}'`` in it replaced by ``values[name]``, itself resolved.

    ``place`` is the dotted name of the value, for messages; ``seen`` the variables being resolved, to find circles.
    """
    if place.count(".") + place.count("[") > DEEPEST:
        raise ValueError(f"the config is nested more than {DEEPEST} times, in {place[:WIDTH]}...")
    if isinstance(value, dict):
        return {plain_value(key, place): _resolve(item, values, f"{place}.{key}", seen) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        kind = tuple if isinstance(value, tuple) else list
        return kind(_resolve(item, values, f"{place}[{i}]", seen) for i, item in enumerate(value))
    if not isinstance(value, str):
        return plain_value(value, place)
    whole = VARIABLE.fullmatch(value)
    if whole:
        return _variable(whole[1], values, place, seen)
    value = str(value)  # NumPy has a kind of text of its own
    filled = VARIABLE.sub(lambda match: str(_variable(match[1], values, place, seen)), value)
    # A name that had variables in it is one now.
    return _resolve(filled, values, place, seen) if VARIABLE.search(filled) else filled


def _variable(name: str, values: dict, place: str, seen: tuple[str, ...]) -> object:
    if name not in values:
        # Variables of the same kind, such as eval_..., are suggested if there are any.
        alike = [known for known in values if known.startswith(name.partition("_")[0] + "_")]
        raise KeyError(
            f"{place} refers to '${{{name}}}', which the config does not set" + suggest(name, alike or values)
        )
    _no_circle(name, seen)
    return _resolve(deepcopy(values[name]), values, name, (*seen, name))


def _no_circle(name: str, seen: tuple[str, ...]) -> None:
    if name in seen:
        raise ValueError(f"the config variables {' -> '.join((*seen, name))} refer to each other in a circle")
