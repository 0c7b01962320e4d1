"""What a folder that `export` or `merge` wrote says of itself: data, which is read without running any of it.

`mmgpt.json` holds the model and the chat pipeline as a config has them, the paths of the base as variables, and which
files of weights there are. A `type` in it is the bare name of one of this project's own classes: a registry would
import whatever a dotted name stands for, and look up in MMEngine's what it does not know. `"${here}"` is the folder.
"""

import ast
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath

from mmengine.config import Config
from mmengine.logging import print_log

from mmgpt.compat.names import with_present_names
from mmgpt.utils.config_variables import VARIABLE

from .files import PARTS, file_fingerprint, read_settings

DESCRIPTION, OLD = "mmgpt.json", "config.py"  # the latter in folders of before, and a Python file
FORMAT = 1
# LoRA in peft's own format, and every other trained tensor.
ADAPTER, TRAINED = "adapter/adapter_model.safetensors", "trained.safetensors"
HERE = "${here}"
# The classes that a description may name, by the key that they stand under. All their arguments are plain data: none of
# them builds what an argument names, except for those that are checked here in turn.
TYPES = {
    "model": ("LoRAModel", "Flamingo"),
    "module": ("Flamingo",),
    "vision": ("OpenCLIPVision", "HFVision", "MMPretrainVision"),
    "chat_pipeline": (
        "PrepareImages",
        "FormatPrompt",
        "TokenizeSegments",
        "AddQuestion",
        "AskQuestion",
        "GiveReason",
        "OfferOptions",
    ),
}
# Arguments with which transformers fetches and runs code.
CODE = ("auto_map", "trust_remote_code", "custom_generate", "attn_implementation", "experts_implementation")
DEEPEST = 40  # levels within each other, of which Python's own functions take some hundreds
# A new language model's settings, where `type` is a word of transformers.
LANGUAGE_SETTINGS = re.compile(r"\.language\.config\b")


def exported_folder(path: str | os.PathLike) -> Path | None:
    """The exported folder that a user names, by itself or by the description in it; None for a config file."""
    path = Path(path)
    if path.is_dir():
        return path
    named = path.name == DESCRIPTION or (path.name == OLD and not path.exists())
    return path.parent if named and (path.parent / DESCRIPTION).is_file() else None


def is_exported(folder: Path) -> bool:
    """Whether a folder describes itself, as `export` writes it now or did before."""
    return any((folder / name).is_file() for name in (DESCRIPTION, OLD))


def write_description(folder: Path, values: Mapping, weights: Iterable[str], imports: Iterable[str] = ()) -> None:
    """Writes `mmgpt.json` into a folder whose weights are written.

    Args:
        values: `model`, `chat_pipeline`, and the variables that they refer to.
        weights: the files of weights in the folder.
        imports: modules that register classes of somebody's own; they are left out where all are the project's.
    """
    values = {key: _bare(value) for key, value in values.items()}
    if any(_foreign(values)):
        values["imports"] = list(imports)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "fingerprint": file_fingerprint(folder / name)}
        for name in weights
    }
    content = {"format": FORMAT, **values, "files": files}
    (folder / DESCRIPTION).write_text(json.dumps(content, indent=2, default=_plain) + "\n", encoding="utf-8")


def read_description(folder: Path, trust: bool = False) -> Config:
    """The config that a folder describes, its weights complete.

    Args:
        folder: that `export` or `merge` wrote, now or with a `config.py`.
        trust: whether classes of somebody's own are imported; what is imported is printed.

    Raises:
        FileNotFoundError: there is no description, or what it names is not in the folder.
        ValueError: it is damaged, holds what no description has, or needs to be trusted; the files are not those that
            were written.
    """
    values, file = _read(folder)
    check_weights(folder)
    if file.name == OLD:
        if trust:
            print(f"{folder} is trusted: {file} is run", file=sys.stderr, flush=True)
            return Config.fromfile(file)
        if values is None:
            raise ValueError(
                f"{file} is a program, not plain settings, and is not run: --trust (trust=True in Python) runs it"
            )
        said = f"{file} was written by an earlier mmgpt; it is read as plain settings: export the model again"
        print_log(said, "current", logging.WARNING)
    _check(values, file)
    values = with_present_names(values, file)
    _trust(file, list(_foreign(values)), values.get("imports", []), trust)
    kept = {key: value for key, value in values.items() if key not in ("format", "files", "imports")}
    kept = {**_replaced(kept, HERE, str(folder.absolute())), "default_scope": "mmgpt"}
    text = file.read_text(encoding="utf-8")
    return Config(kept, cfg_text=text, filename=str(file), format_python_code=False)


def check_weights(folder: Path) -> dict[str, dict]:
    """The files of weights that a folder's description names, each of which is there as it was written.

    Raises:
        FileNotFoundError, ValueError: one is not, or weights are there that it does not name.
    """
    values, file = _read(folder)
    if values is None:
        return {name: {} for name in (ADAPTER, TRAINED) if (folder / name).is_file()}
    model, files = values.get("model"), values.get("files")
    if file.name == OLD:
        files = {name: {} for name in (ADAPTER, TRAINED) if (folder / name).is_file()}
    elif not _is_files(files):
        raise ValueError(f"{file}: `files` has to name the weights of the folder, with their bytes and fingerprint")
    if isinstance(model, Mapping) and model.get("type") == "LoRAModel" and ADAPTER not in files:
        raise FileNotFoundError(f"{folder} has no {ADAPTER}: without it, the model would answer as before tuning")
    for name, written in files.items():
        path = folder / name
        if not path.is_file():
            what = "is a folder, not a file" if path.is_dir() else "is missing"
            raise FileNotFoundError(f"{path}, which {file.name} names, {what}: copy the whole folder")
        size = path.stat().st_size
        if size != written.get("bytes", size):
            raise ValueError(f"{path} has {size} bytes, and {written['bytes']} when it was written: copy it again")
        if written and file_fingerprint(path) != written.get("fingerprint"):
            raise ValueError(f"{path} is not the file that {file.name} was written with: it has another content")
    extra = [name for name in (ADAPTER, TRAINED) if name not in files and (folder / name).exists()]
    if extra:
        raise ValueError(f"{folder / extra[0]} does not belong to the folder: {file.name} does not name it")
    return files


def _read(folder: Path) -> tuple[dict | None, Path]:
    """The content of a folder's description and its file; None of an old one that is not plain."""
    if (folder / DESCRIPTION).is_file():
        return read_settings(folder / DESCRIPTION), folder / DESCRIPTION
    if (folder / OLD).is_file():
        return read_plain_config(folder / OLD), folder / OLD
    raise FileNotFoundError(f"{folder} is no exported model: it has no {DESCRIPTION}, and no {OLD} as older ones have")


def read_plain_config(file: Path) -> dict | None:
    """The assignments of a Python file, read and not run; None where there is anything but names for literals."""
    try:
        statements = ast.parse(file.read_text(encoding="utf-8")).body
        values = {}
        for statement in statements:
            (target,) = statement.targets
            values[target.id] = _literal(statement.value)
    except (SyntaxError, ValueError, AttributeError, TypeError, RecursionError, MemoryError):
        return None
    # MMEngine's name for the folder of a config.
    return _replaced(values, re.compile(r"\{\{\s*fileDirname\s*\}\}"), HERE)


def _literal(node: ast.expr) -> object:
    """A value of `Config.dump`: a literal, dict(...) of literals, or float('inf'). ValueError for anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        if not all(isinstance(argument, ast.Dict) for argument in node.args) or not all(k.arg for k in node.keywords):
            raise ValueError("no dict of literals")
        return dict(*map(_literal, node.args), **{item.arg: _literal(item.value) for item in node.keywords})
    if isinstance(node, ast.Call) and ast.unparse(node) in ("float('inf')", "float('-inf')", "float('nan')"):
        return float(node.args[0].value)
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    return ast.literal_eval(node)


def _check(values: Mapping, file: Path) -> None:
    """Raises a ValueError for what no description has: it could reach code, or nothing would read it."""
    if file.name == DESCRIPTION and values.get("format") != FORMAT:
        raise ValueError(f"{file}: format={values.get('format')!r}, this version of mmgpt reads {FORMAT}")
    known = ("model", "chat_pipeline", "format", "files", "imports")
    for key, value in values.items():
        is_hint = key.partition("_")[0] == "needed" and isinstance(value, Mapping)
        is_variable = isinstance(value, str) and (key not in PARTS and key != "default_scope" or value == "mmgpt")
        if key.startswith("_") or not (key in known or is_hint or is_variable):
            raise ValueError(
                f"{file}: {key!r} has no place in a description, which names no other files or code to run"
            )
    if not isinstance(values.get("model"), Mapping) or not isinstance(values.get("chat_pipeline", []), list):
        raise ValueError(f"{file}: `model` has to be an object, and `chat_pipeline` a list")
    imports = values.get("imports", [])
    if not isinstance(imports, list) or not all(isinstance(name, str) for name in imports):
        raise ValueError(f"{file}: `imports` has to be a list of names of modules, got {imports!r}")
    variables = {name for name, value in values.items() if isinstance(value, str)} | {"here"}
    for place, key, value in _entries(values, ""):
        if place.count(".") + place.count("[") > DEEPEST:
            raise ValueError(f"{file}: {key} is nested more than {DEEPEST} levels deep")
        if key.startswith("_") or key in CODE:
            raise ValueError(f"{file}: {place} has no place in a description: it can name code to run")
        if isinstance(value, str):
            unknown = [name for name in VARIABLE.findall(value) if name not in variables]
            inner = (
                "." not in place and "[" not in place and [name for name in VARIABLE.findall(value) if name != "here"]
            )
            if unknown or inner:
                raise ValueError(f"{file}: {place}={value!r} refers to what is no path among the variables there")


def _foreign(values: Mapping) -> Iterator[tuple[str, object, tuple[str, ...]]]:
    """(dotted name, value, choices) of each `type` that names none of the project's own classes."""
    for place, key, value in _entries({key: values.get(key) for key in ("model", "chat_pipeline")}, ""):
        if key != "type" or LANGUAGE_SETTINGS.search(place):
            continue
        choices = TYPES.get(re.sub(r"(\[\d+\])+$", "", place.removesuffix(".type")).rpartition(".")[2], ())
        if not isinstance(value, str) or value not in choices:
            yield place, value, choices


def _trust(file: Path, foreign: list[tuple[str, object, tuple[str, ...]]], imports: list[str], trust: bool) -> None:
    """Imports what a description needs beside the project's own. ValueError when it is not to be trusted."""
    if not foreign and not imports:
        return
    dotted = [value.rpartition(".")[0] for _, value, _ in foreign if isinstance(value, str) and "." in value]
    modules = ", ".join(dict.fromkeys([*imports, *dotted]))
    said = [
        f"{place}={value!r} is none of mmgpt's own classes ({', '.join(choices) or 'none belongs there'})"
        for place, value, choices in foreign
    ]
    said = "; ".join([*said, *([f"it asks for the import of {modules}"] if modules else [])])
    if not trust:
        raise ValueError(
            f"{file}: {said}. Such code can do anything: --trust (trust=True in Python) allows it, where you trust the "
            "author of the folder and have that code"
        )
    print(f"{file} is trusted: {said}", file=sys.stderr, flush=True)
    for name in imports:
        import_module(name)


def _entries(value: object, place: str, key: str = "") -> Iterator[tuple[str, str, object]]:
    """(dotted name, key, value) of everything within a value."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            inner = f"{place}.{name}" if place else str(name)
            yield inner, str(name), item
            yield from _entries(item, inner, str(name))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield f"{place}[{i}]", key, item
            yield from _entries(item, f"{place}[{i}]", key)


def _is_files(files: object) -> bool:
    """Whether it names files within a folder, at least one, each with what is known of it."""
    return (
        isinstance(files, Mapping)
        and bool(files)
        and all(isinstance(known, Mapping) and {"bytes", "fingerprint"} <= known.keys() for known in files.values())
        and not any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in files)
    )


def _replaced(value: object, old: str | re.Pattern, new: str) -> object:
    """A config with another text for one within its strings."""
    if isinstance(value, Mapping):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(item, old, new) for item in value]
    if not isinstance(value, str):
        return value
    return value.replace(old, new) if isinstance(old, str) else old.sub(lambda _: new, value)


def _bare(value: object) -> object:
    """A config whose types are named without 'mmgpt.', by which configs of MMEngine's newer style name classes."""
    if isinstance(value, Mapping):
        named = {key: _bare(item) for key, item in value.items()}
        if isinstance(named.get("type"), str) and named["type"].startswith("mmgpt."):
            named["type"] = named["type"].rpartition(".")[2]
        return named
    return [_bare(item) for item in value] if isinstance(value, (list, tuple)) else value


def _plain(value: object) -> list:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise ValueError(f"a description holds plain values only, not {value!r}, a {type(value).__name__}")
