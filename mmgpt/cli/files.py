"""Files that a config names: a check that they exist, before anything is built, and fingerprints of their content."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import huggingface_hub

from mmgpt.utils.hub import is_hub_name, local_folder
from mmgpt.utils.json_file import read_json_object
from mmgpt.utils.shard_files import annotation_path, is_address, names_shards, shard_files

# Top-level names of a config from which objects are built. Other top-level names are variables, used or not.
SECTIONS = (
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
FILE_KEYS = ("path", "weights", "tokenizer", "config_file", "load_from", "similar", "sizes")
# A folder has to hold one file of each tuple. CONTENT has these by the type of the dict that names it, or by its key.
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")  # The first kind that is there is loaded.
TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json")
CONTENT = {
    "OpenCLIPVision": [("open_clip_config.json",), WEIGHTS],
    "HFVision": [("config.json",), WEIGHTS],
    "TimmVision": [("config.json",), WEIGHTS],
    "language": [("config.json",), TOKENIZER, WEIGHTS],
    "tokenizer": [TOKENIZER],
}
MODEL_FOLDER = (("config.json",), WEIGHTS)  # A folder of any other type has these.
# These files of a tokenizer decide its ids, too.
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
# `file_fingerprint` reads files up to this size as a whole, and BLOCKS blocks of BLOCK bytes of larger ones.
WHOLE, BLOCKS, BLOCK = 64 << 20, 256, 64 << 10


def check_files(cfg: Mapping, skip: Iterable[str] = ()) -> None:
    """Raises one error that lists every file and folder that the config needs and that does not exist.

    A folder of weights is incomplete without the files that loading it needs. The files of a model that is named by its
    Hub id are downloaded, unless others are missing.

    A file that a config names as ``dict(path=..., source='what it is and where to get it')`` is listed with its source,
    which `load_config` gathers in ``sources``.

    Args:
        cfg: as `load_config` returns it.
        skip: names of SECTIONS that are not checked, such as ``'train_dataloader'`` for an evaluation.

    Raises:
        FileNotFoundError: something is missing.
    """
    sections = {name: cfg.get(name) for name in SECTIONS if name not in set(skip)}
    # 1. Missing paths, each with the dotted names of the config that need it; of an incomplete folder, its files.
    names: dict[str, list[str]] = {}
    errors: dict[str, str] = {}  # of Hub ids
    entries = list(_named_files(sections, ""))
    on_hub = [entry for entry in entries if _is_on_hub(*entry)]
    for name, path, content in (entry for entry in entries if entry not in on_hub):
        for missing in _missing_paths(path, path, content):
            names.setdefault(missing, []).append(name)
            if is_address(path):
                try:
                    shard_files(path)
                except FileNotFoundError as error:
                    errors[path] = str(error)
    # A download begins when all other files are there.
    for name, path, content in on_hub if not names or huggingface_hub.is_offline_mode() else ():
        try:
            folder = "" if path in errors else _located(name, path, content)
        except FileNotFoundError as error:
            folder, errors[path] = "", str(error)
        for missing in _missing_paths(path, folder, content):
            names.setdefault(missing, []).append(name)
    if not names:
        return
    # 2. The message, with the paths of the same source and the same options together.
    groups: dict[tuple[str, str], list[str]] = {}
    sources = cfg.get("sources") or {}
    for path in names:
        # The source is that of the longest path there that the file is, ends with, or lies under.
        matches = [name for name in sources if _under(path, name) or path.endswith(f"{os.sep}{name}")]
        source = errors.get(path) or (sources[max(matches, key=len)] if matches else "")
        # The options are the config variables that contain the path, else the dotted names that need it.
        variables = [name for name, value in cfg.items() if isinstance(value, str) and _under(path, value)]
        variables = [name for name in variables if name not in SECTIONS] or names[path]
        options = " or ".join(f"--cfg-options {name}=..." for name in variables)
        groups.setdefault((source, options), []).append(path)
    lines = [f"{len(names)} files or folders that the config needs are missing (looked for from {os.getcwd()}):"]
    for (source, options), paths in groups.items():
        lines.append(f"  {source or 'Other files'}")
        for path in paths:
            first, *others = names[path]
            lines.append(f"    {path}  ({first}{f' and {len(others)} more' if others else ''})")
        lines.append(f"    elsewhere? {options}")
    raise FileNotFoundError("\n".join(lines))


def _missing_paths(path: str, folder: str, content: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yields what is missing of a path that lies at `folder`: the path itself, or files of the folder."""
    if not _exists(folder):
        yield path
    elif os.path.isdir(folder):
        for choices in content:
            if not any(any(Path(folder).glob(choice)) for choice in choices):
                yield os.path.join(path, " or ".join(choices))


def _exists(path: str) -> bool:
    """Whether there is a file or a folder, or a shard of a pattern."""
    with suppress(FileNotFoundError):  # a dataset that the Hub's cache does not hold
        return os.path.exists(path) or names_shards(path) and bool(shard_files(path))
    return False


def _is_on_hub(name: str, path: str, content: Iterable[tuple[str, ...]]) -> bool:
    """Whether an entry of `_named_files` is the Hub id of a model or a tokenizer."""
    return bool(content) and is_hub_name(path)


def _located(name: str, path: str, content: Iterable[tuple[str, ...]]) -> str:
    """The local path of an entry of `_named_files`, see `local_folder`."""
    return local_folder(path, weights=WEIGHTS in content) if _is_on_hub(name, path, content) else path


def read_settings(file: Path) -> dict:
    """JSON object of a file, empty where there is no file. ValueError when the file holds something else."""
    return read_json_object(file) if file.is_file() else {}


def named_files(section: object) -> list[str]:
    """Existing files and folders that a section of a config names, each once; of a Hub id, the folder in the cache."""
    paths = (_located(*entry) for entry in _named_files(section, ""))
    return list(dict.fromkeys(path for path in paths if _exists(path)))


def data_files(datasets: object) -> list[str]:
    """Files that dataset configs name: those with annotations, questions, and features of images."""
    paths = named_files(datasets)
    files = [file for path in paths for file in (shard_files(path) if names_shards(path) else [path])]
    return [path for path in files if os.path.isfile(path)]


def fingerprints(section: object) -> dict[str, str]:
    """Fingerprints of the files, and of the folders of weights or a tokenizer, that a section of a config names.

    The keys are the dotted names in the config. Folders of images are left out: they may hold millions of files.
    """
    files: dict[str, tuple[str, tuple]] = {}
    for name, path, content in _named_files(section, ""):
        path = _located(name, path, content)
        if _exists(path) and not (os.path.isdir(path) and "data_prefix." in name):
            files[name] = path, tuple(content) or MODEL_FOLDER
    # Each file is read once, although every dataset names the tokenizer.
    digests = {key: file_fingerprint(*key) for key in set(files.values())}
    return {name: digests[key] for name, key in files.items()}


def file_fingerprint(path: str | os.PathLike, content: Iterable[tuple[str, ...]] = ()) -> str:
    """Digest of 16 hexadecimal digits of the content of a file or folder, independent of its path.

    Of a file of more than 64 MB, 256 blocks are read, which takes no longer for 100 GB; all shards of a pattern have
    these limits together, with at least two blocks each. Where a folder has weights in
    several formats, only those that are loaded count: safetensors before the others.

    Args:
        path: the file or folder.
        content: patterns of the files that count in a folder, see CONTENT.
    """
    files, digest, divisor = [Path(path)], hashlib.blake2b(digest_size=8), 1
    if names_shards(path):
        files = [Path(file) for file in shard_files(path)]
        divisor = len(files)
    elif os.path.isdir(path):
        patterns = {pattern for choices in content if choices != WEIGHTS for pattern in choices}
        patterns |= set(TOKENIZER_SETTINGS) if TOKENIZER in content else set()
        if WEIGHTS in content:
            patterns |= set([pattern for pattern in WEIGHTS if any(files[0].glob(pattern))][:1])
        files = sorted({file for pattern in patterns for file in files[0].glob(pattern)})
    for file in files:
        size, name = file.stat().st_size, "" if file == Path(path) else file.name
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
        blocks = max(2, BLOCKS // divisor)
        starts = [(size - BLOCK) * i // (blocks - 1) for i in range(blocks)]
        if size <= max(2 * BLOCK, WHOLE // divisor):
            starts = range(0, size, BLOCK)
        with file.open("rb") as opened:
            for start in starts:
                opened.seek(start)
                digest.update(opened.read(BLOCK))
    return digest.hexdigest()


def _content(key: str, config: Mapping) -> list[tuple[str, ...]]:
    """Patterns of the files in a folder that a dict of a config names, by the key or the type (see CONTENT)."""
    kind = config.get("type")
    content = CONTENT.get(key) or CONTENT.get(getattr(kind, "__name__", str(kind)).rpartition(".")[2], [])
    if config.get("pretrained") is False:
        content = [choices for choices in content if choices is not WEIGHTS]
    return [choices for choices in content if choices != ("config.json",) or not config.get("config")]


def _named_files(value: object, name: str) -> Iterator[tuple[str, str, list[tuple[str, ...]]]]:
    """Yields (dotted name, path, patterns of a folder's files) of everything in ``value`` that names a file."""
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _named_files(item, f"{name}[{i}]")
    # A mixture leaves out a dataset of weight 0.
    if not isinstance(value, Mapping) or "ann_file" in value and value.get("weight") == 0:
        return
    prefix = f"{name}." if name else ""
    for key, item in value.items():
        if isinstance(item, str):
            if _names_file(key, item):
                yield prefix + key, item, _content(name.rpartition(".")[2] if key == "path" else key, value)
        else:
            yield from _named_files(item, prefix + key)
    # A dataset has ann_file, and the folders of data_prefix, both under data_root. Shards that it reads as a stream, or
    # whose address it does not read without one, may be anywhere.
    root, ann_file, folders = (value.get(key) or "" for key in ("data_root", "ann_file", "data_prefix"))
    if ann_file and isinstance(ann_file, str) and value.get("stream") is None:
        path = annotation_path(root, ann_file)
        if names_shards(path) or not is_address(path):
            yield prefix + "ann_file", path, []
    for key, folder in folders.items() if isinstance(folders, Mapping) else ():
        if isinstance(folder, str) and root + folder:
            yield f"{prefix}data_prefix.{key}", os.path.join(root, folder), []


def _names_file(key: str, value: str) -> bool:
    """Whether a text of a config is a path; open_clip also takes names such as 'ViT-L-14' and 'openai'."""
    if key == "model":
        return value.endswith(".json")
    if key == "pretrained":
        return "/" in value or os.sep in value or bool(Path(value).suffix)
    return bool(value) and key in FILE_KEYS


def _under(path: str, folder: str) -> bool:
    return bool(folder) and Path(path).is_relative_to(folder)
