"""Parquet shards, as Hugging Face keeps datasets with pictures in them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mmgpt.datasets.parsers.fields import OTHER_MEDIA

from .pictures import keep, shards
from .rows import at, find_columns, row_sample


def read_parquet(source: Path, named: Mapping[str, str], folder: Path) -> Iterator[tuple[str, dict]]:
    """Parquet files of Hugging Face (one, or a folder of them): an image column with the bytes, and columns of text.

    The columns are those of csv, or `conversations` in LLaVA's layout; answers may be a list. An image is a struct of
    bytes and path, bytes, or a list of these. The pictures are written into a folder.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise ValueError("Parquet files need pyarrow: pip install -r requirements/parquet.txt") from error
    for path in shards(source, ".parquet"):
        number = 0
        try:
            with ParquetFile(path) as file:
                columns = _columns(path, file.schema_arrow, named)
                media = [name for name in file.schema_arrow.names if name in OTHER_MEDIA]
                wanted = [name for names in columns.values() for name in names] + media
                for batch in file.iter_batches(batch_size=64, columns=wanted):
                    for row in batch.to_pylist():
                        place = f"{path}, row {number}"
                        with at(place):
                            sample = row_sample(row | _kept(row, columns["image"], folder), columns)
                        yield place, sample
                        number += 1
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path}: no readable Parquet file: {error}") from error


def _columns(path: Path, schema: "pyarrow.Schema", named: Mapping[str, str]) -> dict[str, list[str]]:  # noqa: F821
    with at(str(path)):
        columns = find_columns(schema.names, named)
        binary = [field.name for field in schema if "binary" in str(field.type)]
        if binary and not columns["image"] and "image" not in named:
            raise ValueError(
                f"column {binary[0]!r} holds bytes, but no column is taken for images: "
                f"name it by --columns image={binary[0]}, or none by --columns image="
            )
        return columns


def _kept(row: Mapping, names: list[str], folder: Path) -> dict[str, list[str]]:
    """The image columns of a row with paths instead of bytes."""
    return {name: [_keep(name, item, folder) for item in _items(row[name])] for name in names}


def _items(value) -> list:
    return [] if value is None else value if isinstance(value, list) else [value]


def _keep(name: str, item, folder: Path) -> str:
    content = item.get("bytes") if isinstance(item, dict) else item
    if not isinstance(content, bytes):
        raise ValueError(f"key {name!r} must hold the bytes of a picture, got {item!r:.80}")
    with at(f"key {name!r}"):
        return keep(content, folder)
