"""Shards of a dataset: the files that a pattern, a folder of the library `datasets`, or an address on the Hub names."""

import json
import os
import re
from glob import escape, glob
from pathlib import Path
from urllib.parse import unquote

import huggingface_hub
from huggingface_hub import constants

SHARD_SUFFIXES = (".parquet", ".arrow", ".tar")
# An address as huggingface_hub's file system has it, with or without the files in the repository.
HUB, HUB_FILES = (
    "hf://datasets/",
    re.compile(
        r"hf://datasets/(?P<name>[^/@]+/[^/@]+)(@(?P<revision>refs/(convert|pr)/[^/]+|[^/]+))?(/(?P<files>.+))?"
    ),
)
PIPE = "pipe:"  # a command whose output is a shard
# `datasets` lists the shards of a `Dataset` in the one file, and the splits of a `DatasetDict` in the other.
STATE, SPLITS = "state.json", "dataset_dict.json"


def is_address(path: str | os.PathLike) -> bool:
    """Whether an annotation file is an address, such as `s3://bucket/0.tar`, or a command, `pipe:...`, and no path."""
    return "://" in os.fspath(path) or os.fspath(path).startswith(PIPE)


def annotation_path(root: str | os.PathLike | None, file: str) -> str:
    """Path of an annotation file under the `data_root` of its dataset; an address as it is."""
    return file if is_address(file) else os.path.join(root or "", file)


def names_shards(path: str | os.PathLike) -> bool:
    """Whether an annotation file is a file or pattern of SHARD_SUFFIXES, a folder of `save_to_disk`, or on the Hub."""
    path = os.fspath(path)
    if is_address(path):
        return path.startswith(HUB)
    return path.endswith(SHARD_SUFFIXES) or any(os.path.isfile(os.path.join(path, name)) for name in (STATE, SPLITS))


def local_path(path: str | os.PathLike) -> str:
    """A path as it is; of an address on the Hub (`hf://datasets/OWNER/NAME/data/train-*.parquet`), that in its cache.

    Nothing is downloaded.

    Raises:
        FileNotFoundError: the cache of the Hub does not hold the dataset; says how to get it.
        ValueError: the address names no shards of a dataset; names those in the cache.
    """
    path = os.fspath(path)
    if not path.startswith(HUB):
        return path
    match = HUB_FILES.fullmatch(path)
    if not match:
        raise ValueError(f"{path}: an address on the Hub is {HUB}OWNER/NAME/FILES or {HUB}OWNER/NAME@REVISION/FILES")
    name, revision = match["name"], unquote(match["revision"] or "") or None
    try:
        folder = huggingface_hub.snapshot_download(
            name, repo_type="dataset", revision=revision, local_files_only=True, cache_dir=constants.HF_HUB_CACHE
        )
    except (OSError, ValueError) as error:
        command = f"hf download {name} --repo-type dataset" + (f" --revision {revision}" if revision else "")
        reason = f"the Hub's cache ({constants.HF_HUB_CACHE}) does not hold {name}" + (f"@{revision}" * bool(revision))
        raise FileNotFoundError(f"{path}: {reason}: run `{command}` with a network") from error
    if not (match["files"] or "").endswith(SHARD_SUFFIXES):
        paths = (path.relative_to(folder) for path in Path(folder).rglob("*") if path.suffix in SHARD_SUFFIXES)
        files = sorted(map(str, paths))
        raise ValueError(f"{path} must end in the names of shards; in the cache are {', '.join(files[:5]) or 'none'}")
    return os.path.join(folder, match["files"])


def shard_folder(path: str | os.PathLike) -> str:
    """Folder of the shards: the longest part of a path or pattern that is a folder's name, which may have brackets.

    Raises:
        FileNotFoundError, ValueError: see `local_path`.
    """
    path = local_path(path)
    while not os.path.isdir(path or "."):
        path = os.path.dirname(path)
    return path


def shard_files(path: str | os.PathLike) -> list[str]:
    """Paths of the shards, those of a pattern in the order of their names; [] where a pattern matches no file.

    The path of a file is not a pattern, even with brackets in it, and neither is the `shard_folder` of a pattern.

    Raises:
        FileNotFoundError: the dataset is not in the Hub's cache.
        ValueError: the folder is that of several splits; names them.
    """
    path = local_path(path)
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        folder = shard_folder(path)
        return sorted(glob(escape(folder) + path[len(folder) :], recursive=True))
    if not os.path.isfile(os.path.join(path, STATE)):
        splits = json.loads(Path(path, SPLITS).read_text())["splits"]
        raise ValueError(f"{path} holds several splits: name the folder of one of them ({', '.join(splits)})")
    return [os.path.join(path, file["filename"]) for file in json.loads(Path(path, STATE).read_text())["_data_files"]]
