"""Reading a config: inheritance, ``--cfg-options``, and the variables that ``'${name}'`` refers to."""

import inspect
import json
import keyword
import os
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import partial, reduce
from pathlib import Path

from mmengine.config import Config

from mmgpt.compat.names import (
    FORMER_VALUES,
    advice_on,
    present_variable,
    warn_of_names,
    warn_of_removed,
    with_present_names,
)
from mmgpt.utils.choices import suggest
from mmgpt.utils.config_variables import VARIABLE

from .config_file import TEMPLATES, read_config
from .config_text import DEEPEST, WIDTH, PlainConfig, plain_value
from .description import exported_folder, is_exported, read_description
from .presets import PRESETS, apply_presets

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# MMEngine's Runner reads these from a config although its constructor has no argument of that name.
RUNNER_KEYS = {"compile", "model_wrapper_cfg", "activation_checkpointing", "sync_bn"}


def load_config(path: str | os.PathLike, options: dict | None = None, trust: bool = False) -> Config:
    """Config of a file with its bases merged, ``options`` merged over it, and every ``'${name}'`` replaced.

    1. Presets (`benchmark`, `style`, ...) are replaced by what they stand for, see `apply_presets`.
    2. Options are merged, undotted ones first. One that leads through a ``'${name}'`` sets that variable:
       'model.lora.r' is 'lora.r'.
    3. Names of an earlier release become the present ones, with a warning.
    4. Variables are replaced, so that an option that sets one changes every value that refers to it. A
       ``dict(path=..., source=...)`` becomes its path, and the loaded config's `sources` holds where to get it.
       Names that begin with an underscore belong to their file and are left out.

    Args:
        path: Python config file, which is run; or a folder that `export` or `merge` wrote, which is data (see
            `read_description`, also for `trust`).
        options: dotted names to values, as ``--cfg-options`` gives them.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or as `read_description` says.
        KeyError: an option or a ``'${name}'`` names nothing in the config, or a preset is unknown.
        ValueError: the file cannot be read, or a value cannot be written down with the results; says where.
    """
    folder = exported_folder(path)
    if folder is None or (not is_exported(folder) and any(folder.glob("*.py"))):
        check_exists(path)
    cfg = read_config(path) if folder is None else read_description(folder, trust)
    options = _present_options(cfg, dict(options or {}), path)
    apply_presets(cfg, {name: options.pop(name) for name in PRESETS if name in options})
    for option in sorted(options, key=lambda option: "." in option):
        followed = _follow(cfg, option)
        _check_option(cfg, followed)
        _merge(cfg, followed, options[option])
    values = with_present_names(cfg.to_dict(), path)
    for name in values:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"{path}: {name!r} cannot be the name of a variable in a config")
    needed = [name for name in values if name.partition("_")[0] == "needed" and isinstance(values[name], dict)]
    if needed and folder is None:
        warn_of_names(dict.fromkeys(needed, "dict(path=..., source=...)"), path)
    # In an earlier release, variables named `needed...` have the sources of files by their paths.
    old = {key: text for name in needed for key, text in values.pop(name).items() if key != "_delete_"}
    sources = {_resolve(key, values, "needed", (), {}): text for key, text in old.items()}
    sources |= values.pop("sources", {})
    resolved = {key: _resolve(value, values, key, (), sources) for key, value in values.items()}
    if sources:
        resolved["sources"] = sources
    public = {key: value for key, value in resolved.items() if not key.startswith("_")}
    return PlainConfig(public, cfg_text=cfg.text, filename=cfg.filename)


def flamingo_config(cfg: Mapping) -> dict:
    """The config of the Flamingo that an experiment's model is, or that its LoRAModel wraps."""
    return cfg["model"].get("module", cfg["model"])


def plain_config(value: object) -> object:
    """A config, or a value in one, in JSON's types: dicts, lists, strings and numbers.

    Classes and functions are their full names, a partial is its function and arguments, and any other object its text.
    """
    return json.loads(json.dumps(value, default=_describe))


def _describe(value: object) -> object:
    """Description of an object without its address in memory, so that it is the same in every process."""
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, partial):
        return {"partial": value.func, "args": value.args, **value.keywords}
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    text = str(value)
    return type(value) if ADDRESS.search(text) else text


def check_exists(path: str | os.PathLike) -> None:
    """Raises a FileNotFoundError, which suggests config files of the same folder, when there is no such config file."""
    path = Path(path)
    if path.is_file():
        return
    folder, slashes = path if path.is_dir() else path.parent, Path(str(path).replace("\\", "/"))
    others = suggest(path.name, [file.name for file in folder.glob("*.py")]) if folder.is_dir() else ""
    if path.is_dir():
        raise FileNotFoundError(f"{str(path)!r} is a folder, not a config file." + others)
    others = f"; did you mean {str(slashes)!r}?" if slashes.is_file() else others
    raise FileNotFoundError(f"there is no config file {str(path)!r}" + others)


def _present_options(cfg: Config, options: dict, path: str | os.PathLike) -> dict:
    """Options under their present names; variables of an earlier release in ``cfg`` become settings there."""
    benchmark, renamed = options.get("benchmark", cfg.get("benchmark")), {}
    for old in list(cfg):
        new = present_variable(old, benchmark)
        *parents, last = (new or "").split(".")
        # In a config without such a setting, the name is a variable of the user's own.
        if not new or old in FORMER_VALUES and last not in (reduce(_child, parents, cfg) or {}):
            continue
        renamed[old], value = new, cfg[old]
        if not _is_used(old, cfg):
            cfg.pop(old)
        # A whole dataset or metric replaces the benchmark's, and does not change it.
        whole = isinstance(value, dict) and "type" in value
        _merge(cfg, new, {**value, "_delete_": True} if whole else value)
    present = {}
    for option, value in options.items():
        old, dot, rest = option.partition(".")
        new = present_variable(old, benchmark)
        renamed |= {old: new} if new else {}
        present[(new or old) + dot + rest] = value
    warn_of_names(renamed, path)
    warn_of_removed([name for name in cfg if advice_on(name) and not _is_used(name, cfg)], path)
    return present


def _is_used(name: str, value: object) -> bool:
    """Whether a config, or a value in one, refers to a variable."""
    if isinstance(value, (dict, Config)):
        return any(_is_used(name, item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(_is_used(name, item) for item in value)
    return isinstance(value, str) and name in VARIABLE.findall(value)


def _follow(cfg: Config, option: str, chain: tuple[str, ...] = ()) -> str:
    """The dotted ``option`` from the last variable on that it leads through in ``cfg``; itself if there is none.

    ``chain`` are the variables followed so far, which must not repeat.
    """
    value, (*names, last) = cfg, option.split(".")
    for i, name in enumerate(names):
        value = _child(value, name)
        whole = VARIABLE.fullmatch(value) if isinstance(value, str) else None
        if whole:
            _check_no_circle(whole[1], chain)
            return _follow(cfg, ".".join([whole[1], *names[i + 1 :], last]), (*chain, whole[1]))
    return option


def _child(value: object, name: str) -> object:
    """Value of a dict under a name, or of a list under its index; None where there is none."""
    if isinstance(value, (list, tuple)):
        return value[int(name)] if name.isdigit() and int(name) < len(value) else None
    return value.get(name) if isinstance(value, (dict, Config)) else None


def _check_option(cfg: Config, option: str) -> None:
    """Raises a KeyError for an option without effect: its first name is not in the config, nor read by the Runner."""
    name = option.split(".")[0]
    if name in {*cfg, *RUNNER_KEYS}:
        return
    # Importing torch takes seconds, so that it is imported only where an error may follow.
    from mmengine.runner import Runner

    choices = set(cfg) | set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} | RUNNER_KEYS
    if name not in choices:
        advice = advice_on(name)
        raise KeyError(f"--cfg-options {option}: the config has no {name!r}" + advice + suggest(name, choices))


def _merge(cfg: Config, option: str, value: object) -> None:
    """Puts a value into ``cfg``; a dict is merged into a dict, and replaces anything else.

    Raises:
        ValueError: the option leads through a value that has no such name.
    """
    if isinstance(value, str) and _is_file(reduce(_child, option.split("."), cfg)):
        option = f"{option}.path"
    attempts = [value, {**value, "_delete_": True}] if isinstance(value, dict) else [value]
    attempts = attempts[-1:] if option in TEMPLATES else attempts
    for i, attempt in enumerate(attempts, start=1):
        try:
            return cfg.merge_from_dict({option: attempt})
        except (TypeError, KeyError, AttributeError) as error:
            if i == len(attempts):
                raise ValueError(f"--cfg-options {option}: {error.args[0]}") from error


def _is_file(value: object) -> bool:
    """Whether a value of a config is a file or folder with its source: dict(path=..., source=...)."""
    return isinstance(value, dict) and value.keys() == {"path", "source"}


def _resolve(value: object, values: dict, location: str, chain: tuple[str, ...], sources: dict[str, str]) -> object:
    """``value`` with each ``'${name}'`` in it replaced by ``values[name]``, itself resolved.

    Args:
        location: dotted name of the value, for messages.
        chain: variables that are being resolved, which must not repeat.
        sources: sources by path, to which those of files with a source are added.
    """
    if location.count(".") + location.count("[") > DEEPEST:
        raise ValueError(f"the config is nested more than {DEEPEST} levels deep, in {location[:WIDTH]}...")
    if _is_file(value):
        path, source = (_resolve(value[key], values, f"{location}.{key}", chain, sources) for key in ("path", "source"))
        others = sources.get(path, "")
        sources[path] = source if not others or source in others else f"{others}; {source}"
        return path
    if isinstance(value, dict):
        return {
            plain_value(key, location): _resolve(item, values, f"{location}.{key}", chain, sources)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        kind = tuple if isinstance(value, tuple) else list
        return kind(_resolve(item, values, f"{location}[{i}]", chain, sources) for i, item in enumerate(value))
    if not isinstance(value, str):
        return plain_value(value, location)

    def variable(name: str) -> object:
        if name not in values and name in FORMER_VALUES:
            return deepcopy(FORMER_VALUES[name])
        if name not in values:
            # Variables with the same first word are suggested if there are any.
            alike = [other for other in values if other.startswith(name.partition("_")[0] + "_")]
            raise KeyError(
                f"{location} refers to '${{{name}}}', which the config does not set{advice_on(name)}"
                + suggest(name, alike or values)
            )
        _check_no_circle(name, chain)
        return _resolve(deepcopy(values[name]), values, name, (*chain, name), sources)

    whole = VARIABLE.fullmatch(value)
    if whole:
        return variable(whole[1])
    # str() also converts NumPy's own type of strings.
    filled = VARIABLE.sub(lambda match: str(variable(match[1])), str(value))
    if VARIABLE.search(filled):
        raise ValueError(
            f"{location}={value!r}: a name in ${{...}} cannot be made of other names; write the whole name, or choose "
            "by `benchmark`, `style` and `tracker` (docs/evaluation.md)"
        )
    return filled


def _check_no_circle(name: str, chain: tuple[str, ...]) -> None:
    """Raises a ValueError for a variable that is being resolved already."""
    if name in chain:
        raise ValueError(f"the config variables {' -> '.join((*chain, name))} refer to each other in a circle")


def without_caches(value: object) -> object:
    """A config, or a value in one, in which each LoadFeatures is replaced by the steps whose features it has cached."""
    if isinstance(value, Mapping):
        return {key: without_caches(item) for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    items: list = []
    for item in value:
        kind = item.get("type") if isinstance(item, Mapping) else None
        is_cache = getattr(kind, "__name__", str(kind)).rpartition(".")[2] == "LoadFeatures"
        items += item.get("steps", [item]) if is_cache else [item]
    return [without_caches(item) for item in items]


def steps_of(section: object, *types: str) -> Iterator[Mapping]:
    """The configs of these types anywhere in a section of a config."""
    if isinstance(section, Mapping):
        if section.get("type") in types:
            yield section
        section = list(section.values())
    if isinstance(section, (list, tuple)):
        for item in section:
            yield from steps_of(item, *types)
