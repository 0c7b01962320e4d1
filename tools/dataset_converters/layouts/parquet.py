"""Reader of Parquet shards, in which Hugging Face stores datasets with images."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mmgpt.datasets.parsers.fields import OTHER_MEDIA

from .images import save_image, shards
from .rows import at, find_columns, row_sample


def read_parquet(source: Path, overrides: Mapping[str, str], folder: Path) -> Iterator[tuple[str, dict]]:
    """Parquet files of Hugging Face (one, or a folder of them): an image column with the bytes, and columns of text.

    The columns are those of csv, or a dialogue: `conversations` in LLaVA's layout, chat `messages`, TRL's `prompt` and
    `completion`, or the_cauldron's `texts`. Answers may be a list. An image is a struct of
    bytes and path, bytes, or a list of these. The images are written into a folder.
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
                schema = file.schema_arrow
                with at(str(path)):
                    columns = find_columns(schema.names, overrides)
                    binary = [field.name for field in schema if "binary" in str(field.type)]
                    if binary and not columns["image"] and "image" not in overrides:
                        raise ValueError(
                            f"column {binary[0]!r} holds bytes, but no column is used for images: "
                            f"name it by --columns image={binary[0]}, or none by --columns image="
                        )
                media = [name for name in schema.names if name in OTHER_MEDIA]
                names = [name for names in columns.values() for name in names] + media
                for batch in file.iter_batches(batch_size=64, columns=names):
                    for row in batch.to_pylist():
                        location = f"{path}, row {number}"
                        with at(location):
                            paths = {name: _save_images(name, row[name], folder) for name in columns["image"]}
                            sample = row_sample(row | paths, columns)
                        yield location, sample
                        number += 1
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path}: not a readable Parquet file: {error}") from error


def _save_images(name: str, value: object, folder: Path) -> list[str]:
    """The paths of the images in a cell: a struct of bytes and path, bytes, a list of these, or None."""
    paths = []
    for item in value if isinstance(value, list) else [] if value is None else [value]:
        content = item.get("bytes") if isinstance(item, dict) else item
        if not isinstance(content, bytes):
            raise ValueError(f"key {name!r} must hold the bytes of an image, got {item!r:.80}")
        with at(f"key {name!r}"):
            paths.append(save_image(content, folder))
    return paths
