"""Description of an exported folder (`mmgpt.json`): its config as data, which is read without running any code.

It holds the model and the chat pipeline as a config has them, the paths of the base as variables, and the names of the
weight files. A `type` in it is the bare name of one of this project's classes: a registry would import the module
of a dotted name, and search MMEngine's registries for a name that it does not have. `"${here}"` is the folder.
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

from .files import SECTIONS, file_fingerprint, read_settings

DESCRIPTION, OLD = "mmgpt.json", "config.py"  # earlier releases wrote config.py
FORMAT = 1
# LoRA in peft's own format, and the other trainable tensors.
ADAPTER, TRAINED = "adapter/adapter_model.safetensors", "trained.safetensors"
HERE = "${here}"
# The classes that a description may name, by the key that they stand under. All their arguments are plain data: none of
# them builds what an argument names, except for those that are checked here in turn.
TYPES = {
    "model": ("LoRAModel", "Flamingo"),
    "module": ("Flamingo",),
    "vision": ("OpenCLIPVision", "HFVision", "TimmVision", "MMPretrainVision"),
    "perceiver": ("PerceiverResampler",),
    "gated": ("GatedCrossAttentionBlock",),
    "language": ("GatedCausalLM",),
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
# Arguments with which transformers downloads and runs code.
CODE = ("auto_map", "trust_remote_code", "custom_generate", "attn_implementation", "experts_implementation")
# Implementations of the language model's attention in transformers or here; another name is one of code on the Hub.
PLAIN_ATTENTION = re.compile(
    r"model\.(module\.)?language\.attn_implementation=(eager|sdpa|flash_attention_\d|packed_\w+)"
)
# The kinds of some entries of a description, by patterns of their dotted names.
KINDS = {
    Mapping: r"model\.(module|lora)|model\.(module\.)?(vision|language|perceiver|gated|generation)",
    list: r"model\.(module\.)?frozen|model\.train_tokens",
    str: r"model\.(module\.)?(weights|(vision|language)\.(path|dtype|precision))|chat_pipeline\[\d+\]\.tokenizer",
}
KIND_NAMES = {Mapping: "an object", list: "a list", str: "a text"}
MAX_DEPTH = 40  # of nested values; Python's own functions fail at some hundreds
# Settings of a new language model, in which transformers uses `type` for other things.
LANGUAGE_SETTINGS = re.compile(r"\.language\.config\b")


def exported_folder(path: str | os.PathLike) -> Path | None:
    """The exported folder that a path names, which is the folder or its description; None for a config file."""
    path = Path(path)
    if path.is_dir():
        return path
    is_description = path.name == DESCRIPTION or (path.name == OLD and not path.exists())
    return path.parent if is_description and (path.parent / DESCRIPTION).is_file() else None


def is_exported(folder: Path) -> bool:
    """Whether a folder has a description, in the present format or in that of earlier releases."""
    return any((folder / name).is_file() for name in (DESCRIPTION, OLD))


def write_description(folder: Path, values: Mapping, weights: Iterable[str], imports: Iterable[str] = ()) -> None:
    """Write `mmgpt.json` into a folder that has its weight files already.

    Args:
        folder: exported folder.
        values: `model`, `chat_pipeline`, and the variables that they refer to.
        weights: names of the weight files in the folder.
        imports: modules that register foreign classes; they are left out where all classes are the project's.
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
    """The config of an exported folder, whose weight files are checked.

    Args:
        folder: folder that `export` or `merge` wrote, with `mmgpt.json` or with the `config.py` of earlier releases.
        trust: whether modules with foreign classes are imported; their names are printed.

    Raises:
        FileNotFoundError: the folder has no description, or lacks a file that the description names.
        ValueError: the description is damaged, has an entry that is not allowed there, or needs to be trusted; a weight
            file is not the one that was written.
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
        text = f"{file} was written by an earlier mmgpt; it is read as plain settings: export the model again"
        print_log(text, "current", logging.WARNING)
    _check(values, file)
    values = with_present_names(values, file)
    _trust(file, list(_foreign(values)), values.get("imports", []), trust)
    config = {key: value for key, value in values.items() if key not in ("format", "files", "imports")}
    config = {**_replaced(config, HERE, str(folder.absolute())), "default_scope": "mmgpt"}
    for _, _, step in _entries(config.get("chat_pipeline", []), "chat_pipeline"):
        if isinstance(step, dict) and step.get("type") == "TokenizeSegments":
            # Folders of earlier releases do not say it: each text began with the start of sequence, if there was one.
            step.setdefault("add_bos_token", True)
    text = file.read_text(encoding="utf-8")
    return Config(config, cfg_text=text, filename=str(file), format_python_code=False)


def check_weights(folder: Path) -> dict[str, dict]:
    """Check the weight files of a folder against its description, and return their entries by name.

    Raises:
        FileNotFoundError, ValueError: a file is missing or is not the one that was written, or the folder has a weight
            file that the description does not name.
    """
    values, file = _read(folder)
    if values is None:
        return {name: {} for name in (ADAPTER, TRAINED) if (folder / name).is_file()}
    model, files = values.get("model"), values.get("files")
    if file.name == OLD:
        files = {name: {} for name in (ADAPTER, TRAINED) if (folder / name).is_file()}
    elif (
        not isinstance(files, Mapping)
        or not files
        or not all(isinstance(entry, Mapping) and {"bytes", "fingerprint"} <= entry.keys() for entry in files.values())
        or any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in files)
    ):
        raise ValueError(f"{file}: `files` has to name the weights of the folder, with their bytes and fingerprint")
    if isinstance(model, Mapping) and model.get("type") == "LoRAModel" and ADAPTER not in files:
        raise FileNotFoundError(f"{folder} has no {ADAPTER}: without it, the model would answer as before tuning")
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            problem = "is a folder, not a file" if path.is_dir() else "is missing"
            raise FileNotFoundError(f"{path}, which {file.name} names, {problem}: copy the whole folder")
        size = path.stat().st_size
        if size != entry.get("bytes", size):
            raise ValueError(f"{path} has {size} bytes, and {entry['bytes']} when it was written: copy it again")
        if entry and file_fingerprint(path) != entry.get("fingerprint"):
            raise ValueError(f"{path} is not the file that {file.name} was written with: it has another content")
    extra = [name for name in (ADAPTER, TRAINED) if name not in files and (folder / name).exists()]
    if extra:
        raise ValueError(f"{folder / extra[0]} does not belong to the folder: {file.name} does not name it")
    return files


def _read(folder: Path) -> tuple[dict | None, Path]:
    """The content of a folder's description, None for a Python file with more than literals, and the file."""
    if (folder / DESCRIPTION).is_file():
        return read_settings(folder / DESCRIPTION), folder / DESCRIPTION
    if (folder / OLD).is_file():
        return read_plain_config(folder / OLD), folder / OLD
    raise FileNotFoundError(
        f"{folder} is not an exported model: it has no {DESCRIPTION}, nor the {OLD} of earlier releases"
    )


def read_plain_config(file: Path) -> dict | None:
    """The assignments of a Python file, which is not run; None where it has anything but names for literals."""
    try:
        statements = ast.parse(file.read_text(encoding="utf-8")).body
        values = {}
        for statement in statements:
            (target,) = statement.targets
            values[target.id] = _literal(statement.value)
    except (SyntaxError, ValueError, AttributeError, TypeError, RecursionError, MemoryError):
        return None
    # `fileDirname` is MMEngine's name for the folder of a config.
    return _replaced(values, re.compile(r"\{\{\s*fileDirname\s*\}\}"), HERE)


def _literal(node: ast.expr) -> object:
    """A value as `Config.dump` writes it: a literal, dict(...) of literals, or float('inf'); otherwise a ValueError."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        if not all(isinstance(argument, ast.Dict) for argument in node.args) or not all(k.arg for k in node.keywords):
            raise ValueError("not a dict of literals")
        return dict(*map(_literal, node.args), **{item.arg: _literal(item.value) for item in node.keywords})
    if isinstance(node, ast.Call) and ast.unparse(node) in ("float('inf')", "float('-inf')", "float('nan')"):
        return float(node.args[0].value)
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    return ast.literal_eval(node)


def _check(values: Mapping, file: Path) -> None:
    """Raise a ValueError for entries that are not allowed: they could reach code, or nothing would read them."""
    if file.name == DESCRIPTION and values.get("format") != FORMAT:
        raise ValueError(f"{file}: format={values.get('format')!r}, this version of mmgpt reads {FORMAT}")
    keys = ("model", "chat_pipeline", "format", "files", "imports")
    for key, value in values.items():
        # Folders of an earlier release have `needed` and `needed_...` for `sources`.
        is_hint = key.partition("_")[0] in ("sources", "needed") and isinstance(value, Mapping)
        is_variable = isinstance(value, str) and (key not in SECTIONS and key != "default_scope" or value == "mmgpt")
        if key.startswith("_") or not (key in keys or is_hint or is_variable):
            raise ValueError(
                f"{file}: {key!r} has no place in a description, which names no other files or code to run"
            )
    if not isinstance(values.get("model"), Mapping) or not isinstance(values.get("chat_pipeline", []), list):
        raise ValueError(f"{file}: `model` has to be an object, and `chat_pipeline` a list")
    imports = values.get("imports", [])
    if not isinstance(imports, list) or not all(isinstance(name, str) for name in imports):
        raise ValueError(f"{file}: `imports` has to be a list of names of modules, got {imports!r}")
    variables = {name for name, value in values.items() if isinstance(value, str)} | {"here"}
    for name, key, value in _entries(values, ""):
        if name.count(".") + name.count("[") > MAX_DEPTH:
            raise ValueError(f"{file}: {key} is nested more than {MAX_DEPTH} levels deep")
        if key.startswith("_") or (key in CODE and not PLAIN_ATTENTION.fullmatch(f"{name}={value}")):
            raise ValueError(f"{file}: {name} has no place in a description: it can name code to run")
        if isinstance(value, str):
            references = VARIABLE.findall(value)
            is_variable = "." not in name and "[" not in name
            # A variable must not refer to other variables.
            if not variables.issuperset(references) or (is_variable and set(references) - {"here"}):
                raise ValueError(
                    f"{file}: {name}={value!r} refers to something else than the path variables of the file"
                )
    for name, _, value in _entries(values, ""):
        for kind, pattern in KINDS.items():
            if value is not None and re.fullmatch(pattern, name) and not isinstance(value, kind):
                raise ValueError(f"{file}: {name}={value!r:.80}: expected {KIND_NAMES[kind]}")


def _foreign(values: Mapping) -> Iterator[tuple[str, object, tuple[str, ...]]]:
    """Yield (dotted name, value, choices) of each `type` that is not one of the project's own classes."""
    for name, key, value in _entries({key: values.get(key) for key in ("model", "chat_pipeline")}, ""):
        if key != "type" or LANGUAGE_SETTINGS.search(name):
            continue
        choices = TYPES.get(re.sub(r"(\[\d+\])+$", "", name.removesuffix(".type")).rpartition(".")[2], ())
        if not isinstance(value, str) or value not in choices:
            yield name, value, choices


def _trust(file: Path, foreign: list[tuple[str, object, tuple[str, ...]]], imports: list[str], trust: bool) -> None:
    """Import the modules that foreign classes of a description need; a ValueError where the folder is not trusted."""
    if not foreign and not imports:
        return
    dotted = [value.rpartition(".")[0] for _, value, _ in foreign if isinstance(value, str) and "." in value]
    modules = ", ".join(dict.fromkeys([*imports, *dotted]))
    reasons = [
        f"{name}={value!r} is not one of mmgpt's own classes ({', '.join(choices) or 'no class belongs there'})"
        for name, value, choices in foreign
    ]
    reasons += [f"it asks for the import of {modules}"] * bool(modules)
    if not trust:
        raise ValueError(
            f"{file}: {'; '.join(reasons)}. Such code can do anything: --trust (trust=True in Python) allows "
            "it, where you trust the author of the folder and have that code"
        )
    print(f"{file} is trusted: {'; '.join(reasons)}", file=sys.stderr, flush=True)
    for module in imports:
        import_module(module)


def _entries(value: object, name: str, key: str = "") -> Iterator[tuple[str, str, object]]:
    """Yield (dotted name, key, value) of every value within a nested value."""
    if isinstance(value, Mapping):
        for inner_key, item in value.items():
            inner_name = f"{name}.{inner_key}" if name else str(inner_key)
            yield inner_name, str(inner_key), item
            yield from _entries(item, inner_name, str(inner_key))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield f"{name}[{i}]", key, item
            yield from _entries(item, f"{name}[{i}]", key)


def _replaced(value: object, old: str | re.Pattern, new: str) -> object:
    """A config in whose strings one text is replaced by another."""
    if isinstance(value, Mapping):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(item, old, new) for item in value]
    if not isinstance(value, str):
        return value
    return value.replace(old, new) if isinstance(old, str) else old.sub(lambda _: new, value)


def _bare(value: object) -> object:
    """A config whose types do not begin with 'mmgpt.', as classes in configs of MMEngine's newer style do."""
    if isinstance(value, Mapping):
        items = {key: _bare(item) for key, item in value.items()}
        if isinstance(items.get("type"), str) and items["type"].startswith("mmgpt."):
            items["type"] = items["type"].rpartition(".")[2]
        return items
    return [_bare(item) for item in value] if isinstance(value, (list, tuple)) else value


def _plain(value: object) -> list:
    """The list that JSON gets for a set; ValueError for any other value that JSON does not have."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise ValueError(f"a description holds plain values only, not {value!r}, a {type(value).__name__}")
