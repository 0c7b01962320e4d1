"""Shards of samples with their images inside: Parquet files, or tar files of WebDataset."""

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from glob import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from mmgpt.datasets.conversation import LIST_KEYS, TEXT_KEYS, question_contents
from mmgpt.datasets.image_files import SUFFIXES
from mmgpt.datasets.image_folders import image_path
from mmgpt.datasets.parsers.schema import SAMPLE_KEYS
from mmgpt.datasets.shards.tables import arrow_errors
from mmgpt.utils.atomic import atomic_write
from mmgpt.utils.data_uri import is_data_uri, read_data_uri

from .rows import at

SHARD_SUFFIXES = (".parquet", ".tar")
DIGITS = 5  # of the number in the name of a shard
ROW_GROUP = 16 << 20  # bytes of images and texts in a row group of a Parquet file


def shard_pattern(path: Path) -> Path:
    """Pattern of the shards of an annotation file: train-, five digits and .parquet for train.parquet.

    It matches no shards of others, such as train-notes.parquet or train-2024-00000.parquet.
    """
    return path.with_name(f"{escape(path.stem)}-{'[0-9]' * DIGITS}{path.suffix}")


def write_shards(files: Mapping[Path, Sequence[dict]], folder: Path, size: int) -> None:
    """Writes samples into shards in place of those that were there before; none appears before all are complete.

    Args:
        files: samples by the path whose `shard_pattern` the shards match.
        folder: folder that the images' paths are relative to.
        size: bytes of images and texts at which a shard ends.

    Raises:
        FileNotFoundError: an image is missing.
        ValueError: pyarrow is missing, which Parquet files need; a data URI is broken; there are too many shards.
    """
    old, new = {shard for path in files for shard in path.parent.glob(shard_pattern(path).name)}, set()
    with ExitStack() as stack:
        for path, samples in files.items():
            write = _write_parquet if path.suffix == ".parquet" else _write_tar
            for number, shard in enumerate(_shards(samples, folder, size)):
                if number == 10**DIGITS:
                    raise ValueError(f"{path}: more than {number} shards: a larger --shard-size makes fewer")
                file = path.with_name(f"{path.stem}-{number:0{DIGITS}d}{path.suffix}")
                write(stack.enter_context(atomic_write(file)), shard)
                new.add(file)
    for shard in old - new:
        shard.unlink()


def _shards(samples: Sequence[dict], folder: Path, size: int) -> Iterator[list[tuple[dict, list[bytes]]]]:
    """Samples with the bytes of their images, in lists of `size` bytes."""
    shard, total = [], 0
    for number, sample in enumerate(samples):
        with at(f"sample {sample['id'] or number}"):
            paths = [image_path(folder, image) for image in sample["images"]]
            images = [read_data_uri(path) if is_data_uri(path) else Path(path).read_bytes() for path in paths]
        shard.append((sample, images))
        total += sum(map(len, images)) + len(json.dumps(sample["turns"]))
        if total >= size:
            yield shard
            shard, total = [], 0
    if shard:
        yield shard


def _write_parquet(path: Path, shard: Sequence[tuple[dict, list[bytes]]]) -> None:
    """Writes rows in our schema, all questions as lists of contents, and images as `datasets` has them.

    Nothing is compressed: images are already, and each can be read by itself then.
    """
    with arrow_errors(str(path), "Parquet"):
        import pyarrow
        from pyarrow.parquet import write_table

        text = pyarrow.string()
        turn = {
            "question": pyarrow.list_(pyarrow.struct({"type": text, "text": text})),
            **dict.fromkeys(TEXT_KEYS, text),
            **dict.fromkeys(LIST_KEYS, pyarrow.list_(text)),
        }
        columns = {
            "id": text,
            "images": pyarrow.list_(pyarrow.struct({"bytes": pyarrow.binary(), "path": text})),
            "turns": pyarrow.list_(pyarrow.struct(turn)),
            "system": text,
        }
        rows = []
        for sample, images in shard:
            paths = [None if is_data_uri(image) else image for image in sample["images"]]
            cells = [{"bytes": content, "path": name} for content, name in zip(images, paths, strict=True)]
            turns = [{**turn, "question": question_contents(turn["question"])} for turn in sample["turns"]]
            rows.append({**sample, "images": cells, "turns": turns})
        table = pyarrow.Table.from_pylist(rows, pyarrow.schema(columns))
        group = max(1, len(rows) * ROW_GROUP // table.nbytes)
        write_table(table, path, row_group_size=group, compression="none", use_dictionary=False)


def _write_tar(path: Path, shard: Sequence[tuple[dict, list[bytes]]]) -> None:
    """Writes a .json in our schema for each sample, and its images with the same key, in their order."""
    with tarfile.open(path, "w") as tar:
        for number, (sample, images) in enumerate(shard):
            fields = {key: sample[key] for key in SAMPLE_KEYS if sample.get(key)}
            names = [_member(number, i, image, images[i]) for i, image in enumerate(sample["images"])]
            fields |= {"images": names} if names else {}
            text = json.dumps(fields).encode()
            for name, content in zip([f"{number:08d}.json", *names], [text, *images], strict=True):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, BytesIO(content))


def _member(sample: int, number: int, image: str, content: bytes) -> str:
    """Name of an image in a tar file."""
    suffix = "" if is_data_uri(image) else Path(image).suffix.lower()
    if suffix not in SUFFIXES:
        with Image.open(BytesIO(content)) as opened:
            suffix = f".{opened.format.lower()}"
    return f"{sample:08d}.{number}{suffix}"
