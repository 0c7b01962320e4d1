"""Reader of config files: MMEngine's Config.fromfile, whose errors name the file and the line."""

import ast
import codecs
import json
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.config.config import DELETE_KEY

from .config_text import SCALARS

BASE = "_base_"
TEMPLATES = ("prompt_template", "question_template")
SUFFIXES = (".py", ".json", ".yaml", ".yml")
MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16", codecs.BOM_UTF8: "UTF-8 with a byte order mark"}
ESCAPES = "; write a Windows path as r'C:\\data' or with forward slashes"


def read_config(path: str | os.PathLike) -> Config:
    """Config of an existing file with its bases merged, without the functions and modules that it imports.

    Raises:
        FileNotFoundError: a file that ``_base_`` names does not exist.
        ValueError: a file is not UTF-8 or has an error, or files inherit from each other in a circle.
    """
    files = list(_family(Path(path), ()))
    try:
        with _whole_templates():
            cfg = Config.fromfile(path)
    except Exception as error:
        if isinstance(error, ImportError) and not isinstance(error.__cause__, ImportError):
            raise  # The error is inside one of the user's own modules, and needs its traceback.
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame for frame in frames if Path(frame.filename).resolve() in {file.resolve() for file in files}]
        location = f"{lines[-1].filename}, line {lines[-1].lineno}" if lines else str(path)
        if isinstance(error, ImportError):  # MMEngine's own text lists sys.path.
            error = error.__cause__
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        text = " ".join(text.split())
        if text.startswith("Failed to import"):
            text += "; modules beside the package are found from the root of the repository with: export PYTHONPATH=."
        raise ValueError(f"the config {location} cannot be read: {type(error).__name__}: {text}") from error
    trees = [ast.parse(file.read_bytes()) for file in files if file.suffix == ".py"]
    imports = [node for tree in trees for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    imported = {alias.asname or alias.name.partition(".")[0] for node in imports for alias in node.names}
    for name, value in cfg.to_dict().items():
        if callable(value) or (name in imported and type(value) not in SCALARS):
            cfg.pop(name)
    return cfg


@contextmanager
def _whole_templates() -> Iterator[None]:
    """Context manager in which the prompt template of a file replaces that of its base, as if with `_delete_=True`.

    A template's keys belong together, and a base has a name more often than a dict, into which MMEngine merges none.
    """
    merge = Config._merge_a_into_b

    def replacing(a: dict, b: dict, *args) -> dict:
        whole = {
            name: {**a[name], DELETE_KEY: True} for name in TEMPLATES if name in b and isinstance(a.get(name), dict)
        }
        return merge({**a, **whole}, b, *args)

    Config._merge_a_into_b = staticmethod(replacing)
    try:
        yield
    finally:
        Config._merge_a_into_b = staticmethod(merge)


def _family(path: Path, heirs: tuple[Path, ...]) -> Iterator[Path]:
    """Yields a file and the files that it inherits from, checked; ``heirs`` are the files that led to it."""
    if path.resolve() in [heir.resolve() for heir in heirs]:
        circle = " -> ".join(str(file) for file in (*heirs, path))
        raise ValueError(f"config files inherit from each other in a circle: {circle}")
    yield path
    for base in _bases(path):
        if "::" in base:  # MMEngine looks for the file in a package.
            continue
        file = path.parent / base
        if not file.is_file():
            reason = "with backslashes; write /" if "\\" in base else "which is not there"
            raise FileNotFoundError(f"{path}: its {BASE} names {base!r}, {reason} ({os.path.normpath(file)})")
        yield from _family(file, (*heirs, path))


def _bases(path: Path) -> list[str]:
    """Names of the files that a config file inherits from, where they are literals."""
    text = _text(path)
    try:
        if path.suffix == ".py":
            assignments = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
            literals = [node.value for node in assignments if getattr(node.targets[0], "id", None) == BASE]
            bases = ast.literal_eval(literals[0]) if literals else []
        else:
            bases = json.loads(text).get(BASE, []) if path.suffix == ".json" else []
    except SyntaxError as error:
        hint = ESCAPES if "unicodeescape" in str(error) else ""
        raise ValueError(f"{path}, line {error.lineno}: {type(error).__name__}: {error.msg}{hint}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    except ValueError:  # The value is an expression, which MMEngine evaluates.
        return []
    bases = bases if isinstance(bases, (list, tuple)) else [bases]
    if not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{path}: its {BASE} is {bases!r}, not the name of a file or a list of names")
    return list(bases)


def _text(path: Path) -> str:
    """Text of a config file; ValueError for another kind of file, or another encoding than UTF-8."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: a config file ends in {', '.join(SUFFIXES)}")
    content = path.read_bytes()
    coding = next((name for mark, name in MARKS.items() if content.startswith(mark)), None)
    if coding is None and b"\0" in content:
        coding = "UTF-16 or not text"
    try:
        if coding is None:
            return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        coding = f"not UTF-8 in line {line}"
    raise ValueError(f"{path} is {coding}: save it as plain UTF-8")
