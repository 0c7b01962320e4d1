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
) -> tuple[list[int], str]:
    """Number of samples of each shard, and the path of the file that has these numbers.

    Samples are what the parser makes of the records: it may skip some, and `single_turns` makes several of one. Of a
    `pipe:` only the command is known, so that the numbers in the cache hold as long as it is the same.

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
        path = next(filter(Path.is_file, paths), None) or _count(names, read, paths)
        sizes = read_json_object(path)
    missing = [name for name in names if type(sizes.get(name)) is not int]
    if missing:
        raise ValueError(f"{path} has no number of samples of {len(missing)} shards: {missing[0]!r}")
    if not any(sizes[name] for name in names):
        reason = f"belongs to the dataset, according to {path}"
        raise ValueError(f"no record of {names[0]} (of {len(names)} shards) {reason}")
    return [sizes[name] for name in names], str(path)


def _count(names: Sequence[str], read: Callable[[int], Iterable], paths: Sequence[Path]) -> Path:
    """Path of a new file of the numbers of samples by the names of shards, the first of some that can be written."""
    print_log(f"counting the samples of {len(names)} shards by reading all of them", "current", logging.INFO)
    sizes = {name: sum(1 for _ in read(i)) for i, name in enumerate(names)}
    text = json.dumps(sizes, indent=0).encode()
    return write_first(paths, lambda file: file.write(text))
