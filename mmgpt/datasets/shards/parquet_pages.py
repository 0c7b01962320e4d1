"""Positions of byte strings in a column chunk of a Parquet file, of which pyarrow reads nothing less than a row group.

The format: https://github.com/apache/parquet-format (README.md, and parquet.thrift for the headers of pages). Headers
are in Thrift's compact protocol (doc/specs/thrift-compact-protocol.md in https://github.com/apache/thrift).
"""

from collections.abc import Iterable, Iterator
from mmap import mmap

from mmgpt.utils.errors import SampleError

from .images import SNAPPY_BLOCKS, Compression, Position, decompress
from .snappy_blocks import BLOCK, block_starts

CODECS = {"SNAPPY": "snappy", "GZIP": "gzip", "ZSTD": "zstd", "BROTLI": "brotli", "LZ4": "lz4_raw"}
DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # parquet.thrift: PageType
# Fields of PageHeader, and of its DataPageHeaderV2.
TYPE, UNCOMPRESSED_SIZE, COMPRESSED_SIZE, HEADER_V2 = 1, 2, 3, 8
DEFINITION_BYTES, REPETITION_BYTES, IS_COMPRESSED = 5, 6, 7


class Page:
    """Values of a page.

    Args:
        start: index of the first byte in the file.
        data: the bytes in the file.
        codec: name of pyarrow's codec, or None.
        size: number of bytes without compression.
        is_dictionary: whether it is the dictionary of the column chunk.
    """

    def __init__(self, start: int, data: bytes, codec: str | None, size: int, is_dictionary: bool):
        self.start, self.size, self.codec, self.is_dictionary = start, len(data), codec, is_dictionary
        self.content = decompress(codec, data, size) if codec and data else data
        self.data, self.blocks = data, []
        if codec == "snappy" and size > 2 * BLOCK:
            self.blocks = block_starts(data)

    def position(self, first: int, length: int) -> Position:
        """Position in the file of some bytes of the content."""
        if self.codec is None:
            return Position(self.start + first, length)
        if self.blocks:
            block, end = first // BLOCK, -(-(first + length) // BLOCK)
            start, size = block * BLOCK, min(end * BLOCK, len(self.content)) - block * BLOCK
            data = self.data[self.blocks[block] : self.blocks[end]]
            try:
                content = decompress(SNAPPY_BLOCKS, data, size)
            except OSError:  # A block copies from an earlier one.
                content = b""
            if content.startswith(self.content[first : first + length], first - start):
                compression = Compression(SNAPPY_BLOCKS, size, first - start, length)
                return Position(self.start + self.blocks[block], len(data), compression)
        return Position(self.start, self.size, Compression(self.codec, len(self.content), first, length))


def column_pages(data: mmap, chunk) -> Iterator[Page]:
    """Pages of a column chunk with values.

    Args:
        data: the file.
        chunk: pyarrow's ColumnChunkMetaData.

    Raises:
        ValueError: an unknown compression, or a damaged header.
    """
    if chunk.compression != "UNCOMPRESSED" and chunk.compression not in CODECS:
        raise SampleError(f"compression {chunk.compression} is not read, only {', '.join(CODECS)}")
    name = CODECS.get(chunk.compression)
    start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
    end = start + chunk.total_compressed_size
    while start < end:
        header, start = _read_struct(data, start)
        size, full_size = header[COMPRESSED_SIZE], header[UNCOMPRESSED_SIZE]
        following, levels = start + size, 0
        if not start <= following <= end or not 0 <= full_size <= chunk.total_uncompressed_size:
            raise SampleError(f"the header of a page before byte {start} has sizes beyond its column")
        if header[TYPE] in (DATA, DICTIONARY, DATA_V2):
            is_compressed = name is not None
            # In the second version, levels of nesting precede the values, and are never compressed.
            if header[TYPE] == DATA_V2:
                details = header[HEADER_V2]
                levels = details[DEFINITION_BYTES] + details[REPETITION_BYTES]
                is_compressed &= details.get(IS_COMPRESSED, True)
            first, kind = start + levels, header[TYPE]
            codec = name if is_compressed else None
            yield Page(first, data[first:following], codec, full_size - levels, kind == DICTIONARY)
        start = following


class PageSearch:
    """Search of the values of a column chunk, in their order, in its pages.

    Plain values, those of a dictionary and those with their lengths apart all stand as they are in a page, so that they
    are found by their bytes, whatever the encoding.
    """

    def __init__(self, pages: Iterable[Page]):
        self.pages = iter(pages)
        self.page = self.dictionary = None
        self.end = 0  # of the previous value in its page

    def positions(self, values) -> Iterator[Position]:
        """Positions of the next values of the column, a pyarrow array; empty ones and nulls have no bytes."""
        return (self._position(value) if value else Position(0, 0) for value in values.to_pylist())

    def _position(self, value: bytes) -> Position:
        """Position of the next value of the column.

        Raises:
            SampleError: the value does not stand in a page in one piece.
        """
        while True:
            if self.page is not None:
                first = self._next(value)
                if first >= 0:
                    self.end = first + len(value)
                    return self.page.position(first, len(value))
            if self.dictionary is not None and (first := self.dictionary.content.find(value)) >= 0:
                return self.dictionary.position(first, len(value))
            self.page, self.end = next(self.pages, None), 0
            if self.page is None:
                raise SampleError(
                    "its bytes are encoded in pieces (DELTA_BYTE_ARRAY): write the file with plain values"
                )
            if self.page.is_dictionary:
                self.dictionary = self.page

    def _next(self, value: bytes) -> int:
        """Index of a value in the page after the previous one, -1 if there is none."""
        # Mostly four bytes with its length are between them; comparing takes less time than a search.
        first = self.end + 4
        content = self.page.content
        return first if content.startswith(value, first) else content.find(value, self.end)


def _read_struct(data: mmap, at: int) -> tuple[dict[int, object], int]:
    """Fields of a Thrift struct by their numbers, and the index of the byte after it."""
    fields, number = {}, 0
    while data[at]:
        step, kind = data[at] >> 4, data[at] & 15
        at += 1
        if step:
            number += step
        else:
            number, at = _read_integer(data, at)
        if kind in (1, 2):  # a boolean
            fields[number] = kind == 1
        elif kind in (4, 5, 6):  # an integer of 16, 32 or 64 bits
            fields[number], at = _read_integer(data, at)
        elif kind == 8:  # bytes
            size, at = _read_varint(data, at)
            fields[number], at = data[at : at + size], at + size
        elif kind == 12:
            fields[number], at = _read_struct(data, at)
        else:
            raise SampleError(f"the header of a page has a field of type {kind} at byte {at}, which none has")
    return fields, at + 1


def _read_integer(data: mmap, at: int) -> tuple[int, int]:
    """Signed integer, whose lowest bit is its sign (zigzag), and the index of the byte after it."""
    value, at = _read_varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _read_varint(data: mmap, at: int) -> tuple[int, int]:
    """Unsigned integer of seven bits a byte, the lowest first, and the index of the byte after it."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at
