"""Numbers of samples of shards that are read as streams: given in a file, or counted once."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mmengine.logging import print_log

from mmgpt.utils.json_file import read_json_object

from .index import cache_paths, digest, write_first
from .streams import StreamedShards


def shard_sizes(
    shards: StreamedShards, read: Callable[[int], Iterable], parsing: Sequence, path: str | None
) -> list[int]:
    """Number of samples of each shard.

    Args:
        shards: the shards.
        read: function from the number of a shard to its samples, which are counted where nobody has.
        parsing: what the numbers depend on beside the shards, by which they are found in the cache.
        path: JSON file of the numbers by the names of the shards (their addresses where two have the same name), as
            WebDataset's sizes.json; None counts.

    Raises:
        ValueError: the file lacks a shard, or there is no sample.
    """
    names = [os.path.basename(file) for file in shards.files]
    if len(set(names)) < len(names):
        names = shards.files
    if path is not None:
        sizes = read_json_object(path)
    else:
        paths = cache_paths(f"{digest(repr([*parsing, shards.state()]))}.sizes.json")
        found = next(filter(Path.is_file, paths), None)
        sizes = read_json_object(found) if found else _count(names, read, paths)
    missing = [name for name in names if type(sizes.get(name)) is not int]
    if missing:
        raise ValueError(f"{path} has no number of samples of {len(missing)} shards: {missing[0]!r}")
    if not any(sizes[name] for name in names):
        raise ValueError(f"no record of {names[0]} (of {len(names)} shards) belongs to the dataset")
    return [sizes[name] for name in names]


def _count(names: Sequence[str], read: Callable[[int], Iterable], paths: Sequence[Path]) -> dict[str, int]:
    """Numbers of samples by the names of shards, which are written to the first of some paths that can be."""
    print_log(f"counting the samples of {len(names)} shards by reading all of them", "current", logging.INFO)
    sizes = {name: sum(1 for _ in read(i)) for i, name in enumerate(names)}
    text = json.dumps(sizes, indent=0).encode()
    write_first(paths, lambda file: file.write(text))
    return sizes
