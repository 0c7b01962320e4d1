"""Shards of a dataset: the files that a pattern or a folder of the library `datasets` names."""

import json
import os
from glob import escape, glob
from pathlib import Path

SHARD_SUFFIXES = (".parquet", ".arrow", ".tar")
PIPE = "pipe:"  # a command whose output is a shard
# `datasets` lists the shards of a `Dataset` in the one file, and the splits of a `DatasetDict` in the other.
STATE, SPLITS = "state.json", "dataset_dict.json"


def is_address(path: str | os.PathLike) -> bool:
    """Whether an annotation file is an address, such as `s3://bucket/0.tar`, or a command, `pipe:...`, and no path."""
    return "://" in os.fspath(path) or os.fspath(path).startswith(PIPE)


def names_shards(path: str | os.PathLike) -> bool:
    """Whether an annotation file is a file or a pattern of SHARD_SUFFIXES, or a folder of `save_to_disk`."""
    path = os.fspath(path)
    return path.endswith(SHARD_SUFFIXES) or any(os.path.isfile(os.path.join(path, name)) for name in (STATE, SPLITS))


def shard_folder(path: str | os.PathLike) -> str:
    """Folder of the shards: the longest part of a path or pattern that is a folder's name, which may have brackets."""
    path = os.fspath(path)
    while not os.path.isdir(path or "."):
        path = os.path.dirname(path)
    return path


def shard_files(path: str | os.PathLike) -> list[str]:
    """Paths of the shards, those of a pattern in the order of their names; [] where a pattern matches no file.

    The path of a file is not a pattern, even with brackets in it, and neither is the `shard_folder` of a pattern.

    Raises:
        ValueError: the folder is that of several splits; names them.
    """
    path = os.fspath(path)
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        folder = shard_folder(path)
        return sorted(glob(escape(folder) + path[len(folder) :], recursive=True))
    if not os.path.isfile(os.path.join(path, STATE)):
        splits = json.loads(Path(path, SPLITS).read_text())["splits"]
        raise ValueError(f"{path} holds several splits: name the folder of one of them ({', '.join(splits)})")
    return [os.path.join(path, file["filename"]) for file in json.loads(Path(path, STATE).read_text())["_data_files"]]
