"""Looking for the files that a config names, before anything is built."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .config import VARIABLE

# The parts of a config that are built; other top-level names are variables, used or not.
PARTS = (
    "model",
    "train_dataloader",
    "val_dataloader",
    "val_evaluator",
    "test_dataloader",
    "test_evaluator",
    "custom_hooks",
    "chat_pipeline",
    "load_from",
)
FILE_KEYS = ("path", "weights", "tokenizer", "config_file", "load_from")


def check_files(cfg: Mapping, skip: Iterable[str] = ()) -> None:
    """Raise one error that lists every file and folder that the config needs and that does not exist.

    A top-level ``needed = {'${language_model}': 'what it is and where to get it'}`` adds a hint to the files at or
    under that path.

    Args:
        cfg: as `load_config` returns it.
        skip: names of PARTS not to look into, such as ``'train_dataloader'`` when only testing.

    Raises:
        FileNotFoundError: something is missing.
    """
    parts = {part: cfg.get(part) for part in PARTS if part not in set(skip)}
    places: dict[str, list[str]] = {}
    for place, path in _named_files(parts, ""):
        if not os.path.exists(path):
            places.setdefault(path, []).append(place)
    if not places:
        return
    groups: dict[tuple[str, str], list[str]] = {}
    for path in places:
        groups.setdefault((_hint(path, cfg), _options(path, places[path], cfg)), []).append(path)
    lines = [f"{len(places)} files or folders that the config needs are missing (looked for from {os.getcwd()}):"]
    for (hint, options), paths in groups.items():
        lines.append(f"  {hint or 'Other files'}")
        lines += [f"    {path}  ({_first(places[path])})" for path in paths]
        lines.append(f"    elsewhere? {options}")
    raise FileNotFoundError("\n".join(lines))


def _named_files(value: object, place: str) -> Iterator[tuple[str, str]]:
    """Yield (dotted name, path) of everything in ``value`` that names a file or a folder."""
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _named_files(item, f"{place}[{i}]")
    if not isinstance(value, Mapping):
        return
    prefix = f"{place}." if place else ""
    for key, item in value.items():
        if isinstance(item, str):
            if item and (key in FILE_KEYS or key == "pretrained" and _looks_like_file(item)):
                yield prefix + key, item
        else:
            yield from _named_files(item, prefix + key)
    yield from _data_files(value, prefix)


def _data_files(value: Mapping, prefix: str) -> Iterator[tuple[str, str]]:
    """The files of a dataset config: ``ann_file`` and the folders of ``data_prefix``, both under ``data_root``."""
    root, ann_file, folders = (value.get(key) or "" for key in ("data_root", "ann_file", "data_prefix"))
    if ann_file and isinstance(ann_file, str):
        yield prefix + "ann_file", os.path.join(root, ann_file)
    if isinstance(folders, Mapping):
        for key, folder in folders.items():
            if isinstance(folder, str) and root + folder:
                yield f"{prefix}data_prefix.{key}", os.path.join(root, folder)


def _looks_like_file(value: str) -> bool:
    """Whether ``pretrained`` is a path: open_clip also takes tags such as 'openai' there."""
    return "/" in value or os.sep in value or bool(Path(value).suffix)


def _under(path: str, folder: str) -> bool:
    return bool(folder) and Path(path).is_relative_to(folder)


def _hint(path: str, cfg: Mapping) -> str:
    """The text of ``needed`` for the longest path there that ``path`` is, or lies under."""
    hints = {VARIABLE.sub(lambda match: str(cfg.get(match[1])), key): text for key, text in _needed(cfg).items()}
    return hints[max(known, key=len)] if (known := [key for key in hints if _under(path, key)]) else ""


def _needed(cfg: Mapping) -> Mapping:
    return cfg.get("needed") or {}


def _options(path: str, places: list[str], cfg: Mapping) -> str:
    """The options that move ``path``: the config variables it is made of, else the places that name it."""
    names = [name for name, value in cfg.items() if isinstance(value, str) and _under(path, value)]
    names = [name for name in names if name not in PARTS] or places
    return " or ".join(f"--cfg-options {name}=..." for name in names)


def _first(places: list[str]) -> str:
    return places[0] + (f" and {len(places) - 1} more" if len(places) > 1 else "")
