"""Images inside shards: each has a name that says where its bytes are, so that they are read without the rest.

    00000.tar::000123.jpg@1536+2048                         2,048 bytes from byte 1,536 of the shard
    00000.parquet::17/image@4+9000/snappy:12000[16+500]     500 bytes, from byte 16, of the 12,000 that the Parquet page
                                                            of 9,000 bytes from byte 4 has without its compression

The part before `@` names the shard, and in it the member of a tar file, or row and column of a table.
"""

import re
from io import BytesIO
from typing import NamedTuple

from .snappy_blocks import with_length

SNAPPY_BLOCKS = "snappy_blocks"  # the codec of some blocks of data that Snappy has compressed
NAME = re.compile(
    r"(?P<shard>.+?\.(?:parquet|arrow|tar))::(?P<key>.+)@(?P<start>\d+)\+(?P<size>\d+)"
    r"(?:/(?P<codec>\w+):(?P<page>\d+)\[(?P<first>\d+)\+(?P<length>\d+)\])?",
    re.DOTALL,
)


class Compression(NamedTuple):
    """Codec of compressed bytes, their number without it, and the first and the number of those that are meant."""

    codec: str
    page: int
    first: int
    length: int


class Position(NamedTuple):
    """Bytes of a file: the first and the number of them, and how they are compressed."""

    start: int
    size: int
    compression: Compression | None = None


def image_name(shard: str, key: str, position: Position) -> str:
    """Name of an image in a shard.

    Args:
        shard: path of the shard, which may be relative to the image folder.
        key: name of the image in the shard, for messages.
        position: of its bytes, or of the compressed bytes that hold it.
    """
    start, size, compression = position
    name = f"{shard}::{key}@{start}+{size}"
    if compression:
        codec, page, first, length = compression
        name += f"/{codec}:{page}[{first}+{length}]"
    return name


def is_shard_image(path: str) -> bool:
    """Whether a path is the name of an image in a shard."""
    return "::" in path and NAME.fullmatch(path) is not None


def shard_of(path: str) -> str:
    """Path of the file with an image: the shard, or the image's own file."""
    match = NAME.fullmatch(path) if "::" in path else None
    return match["shard"] if match else path


def read_shard_image(path: str) -> bytes:
    """Bytes of an image in a shard.

    Raises:
        FileNotFoundError: there is no such shard.
        ValueError: the shard has changed; or pyarrow, which its compression needs, is missing.
    """
    match = NAME.fullmatch(path)
    start, size = int(match["start"]), int(match["size"])
    with open(match["shard"], "rb", buffering=0) as file:
        file.seek(start)
        content = file.read(size)
    if len(content) < size:
        raise ValueError("the shard ends before the image does: it has changed since it was indexed")
    if match["codec"] is None:
        return content
    compression = Compression(match["codec"], *(int(match[name]) for name in Compression._fields[1:]))
    content = decompress(compression.codec, content, compression.page)
    return content[compression.first : compression.first + compression.length]


def image_source(path: str) -> str | BytesIO:
    """What Pillow opens for a path: the path itself, or the bytes of an image in a shard."""
    return BytesIO(read_shard_image(path)) if is_shard_image(path) else path


def decompress(codec: str, data: bytes, size: int) -> bytes:
    """Content, of `size` bytes, of data that are compressed.

    Args:
        codec: name of one of pyarrow's codecs, or SNAPPY_BLOCKS.

    Raises:
        ValueError: pyarrow is missing.
        OSError: the data are damaged.
    """
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise ValueError("compressed Parquet files need pyarrow: pip install -r requirements/parquet.txt") from error
    if codec == SNAPPY_BLOCKS:
        codec, data = "snappy", with_length(data, size)
    return pyarrow.Codec(codec).decompress(data, size, asbytes=True)
