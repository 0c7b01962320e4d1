"""Blocks of data that Snappy has compressed, each of which can be decompressed by itself.

The format (format_description.txt in https://github.com/google/snappy) does not say so, but compressors take 64 KB at a
time, and copy from these only. A reader of a block has to check its content once.
"""

BLOCK = 1 << 16  # bytes of the content
LITERAL = 0  # type of an element with new bytes; the others copy earlier ones
COPY_SIZES = {1: 2, 2: 3, 3: 5}  # bytes of such an element by its type


def block_starts(data: bytes) -> list[int]:
    """Start of each block in compressed data, then the end; [] where elements go over the boundaries of blocks."""
    at, content, starts = 0, 0, []
    while data[at] > 127:  # the length of the content, see `with_length`
        at += 1
    at += 1
    while at < len(data):
        if content == len(starts) * BLOCK:
            starts.append(at)
        tag = data[at]
        if tag & 3 == LITERAL:
            length, at = (tag >> 2) + 1, at + 1
            if length > 60:  # The length is in the next one to four bytes.
                bytes_of_length = length - 60
                length = int.from_bytes(data[at : at + bytes_of_length], "little") + 1
                at += bytes_of_length
            at += length
        else:
            length = (tag >> 2 & 7) + 4 if tag & 3 == 1 else (tag >> 2) + 1
            at += COPY_SIZES[tag & 3]
        content += length
    return [*starts, at] if len(starts) == -(-content // BLOCK) else []


def with_length(blocks: bytes, length: int) -> bytes:
    """Blocks with the length of their content before them, which makes them compressed data."""
    header = bytearray()
    while length > 127:
        header.append(length & 127 | 128)
        length >>= 7
    return bytes([*header, length]) + blocks
