"""Looking for the files that a config names, before anything is built."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mmgpt.utils.json_file import read_json_object

# The parts of a config that are built; other top-level names are variables, used or not.
PARTS = (
    "model",
    "train_dataloader",
    "val_dataloader",
    "val_evaluator",
    "test_dataloader",
    "test_evaluator",
    "default_hooks",
    "custom_hooks",
    "chat_pipeline",
    "load_from",
)
FILE_KEYS = ("path", "weights", "tokenizer", "config_file", "load_from", "similar")
# What has to be in a folder, by the type of the part of a config that names it, or by its key: one file of each tuple.
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")  # the first that is there is loaded
TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json")
CONTENT = {
    "OpenCLIPVision": [("open_clip_config.json",), WEIGHTS],
    "HFVision": [("config.json",), WEIGHTS],
    "language": [("config.json",), TOKENIZER, WEIGHTS],
    "tokenizer": [TOKENIZER],
}
MODEL_FOLDER = (("config.json",), WEIGHTS)  # of any other type
# The other files of a tokenizer that decide the ids that it gives.
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
# `file_fingerprint` reads files up to this size as a whole, and BLOCKS blocks of BLOCK bytes of larger ones.
WHOLE, BLOCKS, BLOCK = 64 << 20, 256, 64 << 10


def check_files(cfg: Mapping, skip: Iterable[str] = ()) -> None:
    """Raise one error that lists every file and folder that the config needs and that does not exist.

    In a folder of weights, the files are looked for without which it cannot be loaded.

    A file that a config names as ``dict(path=..., source='what it is and where to get it')`` is listed with its source,
    which `load_config` gathers in ``sources``.

    Args:
        cfg: as `load_config` returns it.
        skip: names of PARTS not to look into, such as ``'train_dataloader'`` when only testing.

    Raises:
        FileNotFoundError: something is missing.
    """
    parts = {part: cfg.get(part) for part in PARTS if part not in set(skip)}
    places: dict[str, list[str]] = {}
    for place, path, content in _named_files(parts, ""):
        for missing in _missing(path, content):
            places.setdefault(missing, []).append(place)
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


def read_settings(file: Path) -> dict:
    """The JSON object of a file, empty where there is no file. ValueError when it holds something else."""
    return read_json_object(file) if file.is_file() else {}


def named_files(part: object) -> list[str]:
    """All files and folders that a part of a config names and that exist, each once."""
    return list(dict.fromkeys(path for _, path, _ in _named_files(part, "") if os.path.exists(path)))


def data_files(datasets: object) -> list[str]:
    """The files among them: of dataset configs those with annotations, questions, and features of images."""
    return [path for path in named_files(datasets) if os.path.isfile(path)]


def fingerprints(part: object) -> dict[str, str]:
    """A `file_fingerprint` of every file, and of every folder of weights or a tokenizer, that a part of a config names.

    The keys are the dotted names in the config. Folders of images are left out: they may hold millions of files.
    """
    named: dict[str, tuple[str, tuple]] = {}
    for name, path, content in _named_files(part, ""):
        if os.path.isfile(path) or os.path.isdir(path) and "data_prefix." not in name:
            named[name] = path, tuple(content) or MODEL_FOLDER
    digests = {key: file_fingerprint(*key) for key in set(named.values())}  # a tokenizer is named by every dataset
    return {name: digests[key] for name, key in named.items()}


def file_fingerprint(path: str | os.PathLike, content: Iterable[tuple[str, ...]] = ()) -> str:
    """Sixteen hexadecimal digits that differ for other content, wherever a file or folder lies.

    A file of more than 64 MB is read at 256 places, which takes the same moment for one of 100 GB. Where a
    folder has weights in several formats, only those that are loaded count: safetensors before the others.

    Args:
        path: the file or folder.
        content: patterns of the files that count in a folder, see CONTENT.
    """
    files, digest = [Path(path)], hashlib.blake2b(digest_size=8)
    if os.path.isdir(path):
        patterns = {pattern for choices in content if choices != WEIGHTS for pattern in choices}
        patterns |= set(TOKENIZER_SETTINGS) if TOKENIZER in content else set()
        if WEIGHTS in content:
            patterns |= set([pattern for pattern in WEIGHTS if any(files[0].glob(pattern))][:1])
        files = sorted({file for pattern in patterns for file in files[0].glob(pattern)})
    for file in files:
        size, name = file.stat().st_size, file.name if os.path.isdir(path) else ""
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
        starts = range(0, size, BLOCK) if size <= WHOLE else [(size - BLOCK) * i // (BLOCKS - 1) for i in range(BLOCKS)]
        with file.open("rb") as opened:
            for start in starts:
                opened.seek(start)
                digest.update(opened.read(BLOCK))
    return digest.hexdigest()


def _missing(path: str, content: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield ``path`` if it does not exist, else what a folder there lacks, as a path with the choices."""
    if not os.path.exists(path):
        yield path
    elif os.path.isdir(path):
        for choices in content:
            if not any(any(Path(path).glob(choice)) for choice in choices):
                yield os.path.join(path, " or ".join(choices))


def _content(key: str, part: Mapping) -> list[tuple[str, ...]]:
    """What has to be in the folder that ``part`` of a config, known by its type or its key, names (see CONTENT)."""
    kind = part.get("type")
    wanted = CONTENT.get(key) or CONTENT.get(getattr(kind, "__name__", str(kind)).rpartition(".")[2], [])
    if part.get("pretrained") is False:
        wanted = [choices for choices in wanted if choices is not WEIGHTS]
    return [choices for choices in wanted if choices != ("config.json",) or not part.get("config")]


def _named_files(value: object, place: str) -> Iterator[tuple[str, str, list[tuple[str, ...]]]]:
    """Yield (dotted name, path, what a folder there has to hold) of everything in ``value`` that names a file."""
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _named_files(item, f"{place}[{i}]")
    if not isinstance(value, Mapping) or _left_out(value):
        return
    prefix = f"{place}." if place else ""
    for key, item in value.items():
        if isinstance(item, str):
            if _names_file(key, item):
                yield prefix + key, item, _content(place.rpartition(".")[2] if key == "path" else key, value)
        else:
            yield from _named_files(item, prefix + key)
    for name, path in _data_files(value, prefix):
        yield name, path, []


def _left_out(value: Mapping) -> bool:
    """Whether it is a dataset that its mix leaves out."""
    return "ann_file" in value and value.get("weight") == 0


def _data_files(value: Mapping, prefix: str) -> Iterator[tuple[str, str]]:
    """The files of a dataset config: ``ann_file`` and the folders of ``data_prefix``, both under ``data_root``."""
    root, ann_file, folders = (value.get(key) or "" for key in ("data_root", "ann_file", "data_prefix"))
    if ann_file and isinstance(ann_file, str):
        yield prefix + "ann_file", os.path.join(root, ann_file)
    if isinstance(folders, Mapping):
        for key, folder in folders.items():
            if isinstance(folder, str) and root + folder:
                yield f"{prefix}data_prefix.{key}", os.path.join(root, folder)


def _names_file(key: str, value: str) -> bool:
    """Whether a text of a config is a path; open_clip's parts also take names such as 'ViT-L-14' and 'openai'."""
    if key == "model":
        return value.endswith(".json")
    if key == "pretrained":
        return "/" in value or os.sep in value or bool(Path(value).suffix)
    return bool(value) and key in FILE_KEYS


def _under(path: str, folder: str) -> bool:
    return bool(folder) and Path(path).is_relative_to(folder)


def _hint(path: str, cfg: Mapping) -> str:
    """Where to get a file: the text of ``sources`` for the longest path there that it is, ends with, or lies under."""
    sources = cfg.get("sources") or {}
    known = [source for source in sources if _under(path, source) or path.endswith(f"{os.sep}{source}")]
    return sources[max(known, key=len)] if known else ""


def _options(path: str, places: list[str], cfg: Mapping) -> str:
    """The options that move ``path``: the config variables it is made of, else the places that name it."""
    names = [name for name, value in cfg.items() if isinstance(value, str) and _under(path, value)]
    names = [name for name in names if name not in PARTS] or places
    return " or ".join(f"--cfg-options {name}=..." for name in names)


def _first(places: list[str]) -> str:
    return places[0] + (f" and {len(places) - 1} more" if len(places) > 1 else "")
