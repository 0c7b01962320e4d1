"""Records of Parquet and Arrow files with images in them, as pyarrow and the library `datasets` write them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from mmap import ACCESS_READ, mmap
from typing import BinaryIO

import numpy as np

from mmgpt.utils.errors import SampleError, SampleLocation, located

from .images import Position, image_name
from .parquet_pages import PageSearch, column_pages

ROWS = 64  # rows that are read at a time
FILE_MAGIC = b"ARROW1"  # Arrow files begin with it, and streams, which `datasets` writes, do not
INSTALL = "pip install -r requirements/parquet.txt"


def read_parquet(path: str, name: str) -> Iterator[dict | SampleError]:
    """Records of a Parquet file. Images are given by their names (see `shards.images`), and their bytes not kept.

    A column of images has bytes, structs of bytes and path (the Image feature of `datasets`), or lists of these. An
    image without bytes is given by its path. Within other columns, keys without a value are left out: the structs of a
    column have the same keys in all rows. Bytes of fixed size, such as hashes, become hexadecimal text. In the place of
    a row with a list of images in which one is missing there is the error about it.

    Args:
        path: the file.
        name: its path from the image folder, for the names of images.

    Raises:
        ValueError: pyarrow is missing.
        SampleError: the file is damaged, or images are nested in other columns, or encoded in pieces.
    """
    with arrow_errors(path, "Parquet"):
        from pyarrow.parquet import ParquetFile

        number, named = 0, partial(_position_name, name)
        with (
            ParquetFile(path) as file,
            open(path, "rb") as opened,
            mmap(opened.fileno(), 0, access=ACCESS_READ) as data,
        ):
            keys = _image_columns(file.schema_arrow)
            for group in range(file.num_row_groups):
                chunks = {key: _image_chunk(file.metadata.row_group(group), key) for key in keys}
                searches = {key: PageSearch(column_pages(data, chunk)) for key, chunk in chunks.items()}
                with arrow_errors(path, "Parquet", number):
                    for batch in file.iter_batches(ROWS, row_groups=[group]):
                        images = {key: list(_cells(batch[key], searches[key].positions)) for key in keys}
                        yield from _records(batch, images, named, path, number)
                        number += batch.num_rows


def stream_parquet(file: BinaryIO, path: str, name: str) -> Iterator[tuple[dict | SampleError, dict[str, bytes]]]:
    """Records of a Parquet file, each with the bytes of its images by name.

    The records are those of `read_parquet`, with other names of images.

    Args:
        file: the Parquet file, in which reading can start anywhere.
        path: its path or address, for messages.
        name: its name, for the names of images.

    Raises:
        ValueError: pyarrow is missing.
        SampleError: the file is damaged, or images are nested in other columns.
    """
    with arrow_errors(path, "Parquet"):
        from pyarrow.parquet import ParquetFile

        yield from _with_contents(ParquetFile(file).iter_batches(ROWS), path, name)


def stream_arrow(file: BinaryIO, path: str, name: str) -> Iterator[tuple[dict | SampleError, dict[str, bytes]]]:
    """Records of an Arrow file or stream, see `stream_parquet`."""
    with arrow_errors(path, "Arrow"):
        import pyarrow

        is_file = file.read(len(FILE_MAGIC)) == FILE_MAGIC
        file.seek(0)
        reader = pyarrow.ipc.open_file(file) if is_file else pyarrow.ipc.open_stream(file)
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
        yield from _with_contents(batches, path, name)


def _with_contents(batches: Iterable, path: str, name: str) -> Iterator[tuple[dict | SampleError, dict[str, bytes]]]:
    """Records of batches of rows, each with the bytes of its images by name."""
    contents: dict[str, bytes] = {}

    def named(key: str, image: bytes | str) -> str:
        if isinstance(image, str):
            raise SampleError(f"image {image!r} has no bytes: images beside the shards are not read from a stream")
        image_key = image_name(name, key, Position(0, len(image)))
        contents[image_key] = image
        return image_key

    number = 0
    for batch in batches:
        with arrow_errors(path, "Parquet or Arrow", number):
            keys = _image_columns(batch.schema)
            images = {key: list(_cells(batch[key], lambda values: values.to_pylist())) for key in keys}
            for record in _records(batch, images, named, path, number):
                yield record, dict(contents)
                contents.clear()
            number += batch.num_rows


def read_arrow(path: str, name: str) -> Iterator[dict | SampleError]:
    """Records of an Arrow file or stream; see `read_parquet`."""
    with arrow_errors(path, "Arrow"):
        import pyarrow

        data = pyarrow.memory_map(path).read_buffer()
        if data[: len(FILE_MAGIC)].to_pybytes() == FILE_MAGIC:
            reader = pyarrow.ipc.open_file(data)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            batches = reader = pyarrow.ipc.open_stream(data)
        keys, number = _image_columns(reader.schema), 0

        def positions(values) -> Iterator[Position]:
            """Positions of an array that is a part of the file."""
            wide = values.type == pyarrow.large_binary()
            _, ends, content = values.buffers()
            start = content.address - data.address if content else 0
            if not 0 <= start <= data.size:
                raise SampleError("the file is compressed: write it by `Dataset.save_to_disk`, or as Parquet")
            ends = np.frombuffer(ends, np.int64 if wide else np.int32)
            ends = ends[values.offset : values.offset + len(values) + 1].tolist()
            return (Position(start + first, end - first) for first, end in zip(ends, ends[1:], strict=False))

        for batch in batches:
            images = {key: list(_cells(batch[key], positions)) for key in keys}
            yield from _records(batch, images, partial(_position_name, name), path, number)
            number += batch.num_rows


@contextmanager
def arrow_errors(path: str, kind: str, record: int | None = None) -> Iterator[None]:
    """Context manager that turns errors of pyarrow into errors about a file, or its rows from a record on."""
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: {kind} files need pyarrow: {INSTALL}") from error
    with located(SampleLocation(file=path, record=record)):
        try:
            yield
        except (pyarrow.ArrowException, OSError, LookupError, UnicodeDecodeError) as error:
            raise SampleError(f"not a readable {kind} file: {error}") from error


def _image_columns(schema) -> list[str]:
    """Names of the columns with images. SampleError for bytes in other places."""
    from pyarrow import types

    names = []
    for field in schema:
        kind = field.type
        if types.is_list(kind) or types.is_large_list(kind):
            kind = kind.value_type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if types.is_binary(kind) or types.is_large_binary(kind):
            names.append(field.name)
        elif "binary" in str(field.type).replace("fixed_size_binary", ""):
            reason = "images are read from columns of bytes, of structs of bytes and path, and of lists of these"
            raise SampleError(f"column {field.name!r} is {field.type!s:.200}: {reason}")
    return names


def _image_chunk(group, key: str):
    """Metadata of the column of a row group with the bytes of a column of images."""
    for i in range(group.num_columns):
        chunk = group.column(i)
        path = chunk.path_in_schema
        if path == key or path.startswith(f"{key}.") and path.rpartition(".")[2] in ("bytes", "element", "item"):
            return chunk
    raise SampleError(f"column {key!r} has no bytes")


def _cells(column, positions: Callable) -> Iterator[object]:
    """Value of each row of a column of images: the Position or path of an image, a list of these, or None.

    An item of a list is None, too, where it is null or has neither bytes nor path.

    Args:
        column: the pyarrow array.
        positions: function from an array of bytes to the Position of each value.
    """
    from pyarrow import types

    if not len(column):
        return
    if types.is_list(column.type) or types.is_large_list(column.type):
        first, *ends = column.offsets.to_pylist()
        items = list(_cells(column.values.slice(first, ends[-1] - first), positions))
        starts = [0, *(end - first for end in ends)]
        for i, is_valid in enumerate(column.is_valid().to_pylist()):
            yield items[starts[i] : starts[i + 1]] if is_valid else None
        return
    values, paths = column, [None] * len(column)
    if types.is_struct(column.type):
        values = column.field("bytes")
        if column.type.get_field_index("path") >= 0:
            paths = column.field("path").to_pylist()
    # The fields of a struct that is null may have values.
    validity = zip(column.is_valid().to_pylist(), values.is_valid().to_pylist(), strict=True)
    for position, path, (is_valid, has_bytes) in zip(positions(values), paths, validity, strict=True):
        yield (position if has_bytes else path) if is_valid else None


def _records(
    batch, images: Mapping[str, list], named: Callable, path: str, number: int
) -> Iterator[dict | SampleError]:
    """Records of the rows of a batch, with names in the place of images; of a broken row, the error about it.

    Args:
        batch: pyarrow's RecordBatch.
        images: the cells of the columns with images, see `_cells`.
        named: function from the place of an image in the file, and its cell, to its name.
        path: the file.
        number: of the first row.
    """
    texts = batch.select([key for key in batch.schema.names if key not in images])
    for start in range(0, batch.num_rows, ROWS):
        for i, row in enumerate(texts.slice(start, ROWS).to_pylist(), start):
            record = {key: _plain(value) for key, value in row.items()}
            try:
                with located(SampleLocation(file=path, record=number + i)):
                    for key, cells in images.items():
                        record[key] = _image_names(cells[i], f"{number + i}/{key}", named)
            except SampleError as error:
                record = error
            yield record


def _image_names(cell, place: str, named: Callable):
    """Names of the images of a cell; SampleError where a list has an item without an image."""
    if not isinstance(cell, list):
        return cell if cell is None else named(place, cell)
    if None in cell:
        key = place.partition("/")[2]
        raise SampleError(f"item {cell.index(None)} of column {key!r} has neither bytes nor path")
    return [named(f"{place}/{item}", image) for item, image in enumerate(cell)]


def _position_name(shard: str, key: str, image: Position | str) -> str:
    return image if isinstance(image, str) else image_name(shard, key, image)


def _plain(value):
    """Value of a column without the keys of structs that are null, and with bytes of fixed size as hexadecimal text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, bytes):
        return value.hex()
    return [_plain(item) for item in value] if isinstance(value, list) else value
