"""Index of shards: the samples that a parser makes of their records, in a file that all processes map into memory.

    NAME.mmgpt_index    int64 bytes of the header; the header, JSON filled up with blanks to a multiple of eight bytes;
                        samples as JSON (see `SerializedSamples.write`)

The file is beside the shards, or in a cache folder where that folder cannot be written to.
"""

import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mmgpt.datasets.serialized import SerializedSamples
from mmgpt.utils.atomic import atomic_write

COUNT, SUFFIX = np.dtype(np.int64), ".mmgpt_index"


def index_paths(folder: str | os.PathLike, name: str) -> list[Path]:
    """Paths at which the index of a name of the shards in a folder may be, the first one beside them."""
    return [Path(folder, name + SUFFIX), *cache_paths(f"{digest(os.path.realpath(folder))}-{name}{SUFFIX}")]


def cache_paths(name: str) -> list[Path]:
    """Paths at which a file of the cache may be: in the user's cache folder, and in the folder of temporary files."""
    paths = [Path(tempfile.gettempdir(), name)]
    with suppress(RuntimeError):  # a user without a home directory
        paths.insert(0, Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mmgpt", name))
    return paths


def read_index(path: str | os.PathLike) -> tuple[dict, SerializedSamples]:
    """Header and samples of an index, mapped into memory.

    Raises:
        OSError: the file cannot be read.
        ValueError, LookupError: it is not a whole index.
    """
    with open(path, "rb") as file:
        size = int(np.frombuffer(file.read(COUNT.itemsize), COUNT)[0])
        if not 0 <= size <= os.fstat(file.fileno()).st_size:
            raise ValueError(f"{path} is not an index: its header would have {size} bytes")
        header = json.loads(file.read(size))
    if not isinstance(header, dict):
        raise ValueError(f"{path} is not an index: its header is not an object")
    return header, SerializedSamples.map(path, COUNT.itemsize + size, as_json=True)


def find_index(paths: Sequence[Path], state: object) -> Path | None:
    """The first of some paths with an index whose header has this `state`; files that are no index are passed over."""
    for path in paths:
        with suppress(OSError, ValueError, LookupError):
            if read_index(path)[0]["state"] == state:
                return path
    return None


def write_index(paths: Sequence[Path], header: Mapping, samples: SerializedSamples) -> Path:
    """Writes an index to the first of some paths that can be written, and returns the path.

    Raises:
        OSError: none of them can be written.
    """
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % COUNT.itemsize)

    def write(file: BinaryIO) -> None:
        file.write(np.array([len(text)], COUNT).data)
        file.write(text)
        samples.write(file)

    return write_first(paths, write)


def write_first(paths: Sequence[Path], write: Callable[[BinaryIO], object]) -> Path:
    """Writes a file, by a function, to the first of some paths that can be written; see `write_index`."""
    for path in paths:
        with suppress(OSError) if path != paths[-1] else nullcontext():
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                write(file)
            return path


def code_digest(parser: Callable) -> str:
    """Digest of the source of a parser (see `find_parser`) and of this package of datasets."""
    files = [Path(inspect.getfile(getattr(parser, "func", parser))), *sorted(Path(__file__).parents[1].rglob("*.py"))]
    return digest("\0".join(file.read_text(encoding="utf-8") for file in files))


def digest(text: str) -> str:
    """Sixteen hexadecimal digits that stand for a text."""
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()
