"""Shards of images, and the files that are written from their bytes."""

import io
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from mmgpt.datasets.image_files import is_hidden


def shards(source: Path, suffix: str) -> list[Path]:
    """The files with a suffix in a folder and its subfolders, sorted and without hidden ones; a file is its own shard.

    Raises:
        ValueError: the folder holds no such file.
    """
    files = sorted(visible(source, f"*{suffix}")) if source.is_dir() else [source]
    if not files:
        raise ValueError(f"{source} holds no {suffix} file")
    return files


def visible(folder: Path, pattern: str) -> Iterator[Path]:
    """The paths below a folder that match a pattern and are not hidden."""
    return (path for path in folder.rglob(pattern) if not is_hidden(path.relative_to(folder)))


def save_image(content: bytes, folder: Path) -> str:
    """Writes an image into a folder and returns its path there.

    Its name is a digest of its bytes, so that equal images are one file, and no name in the source becomes a path.

    Raises:
        ValueError: the bytes are not an image.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            suffix = image.format.lower()
    except Exception as error:  # Pillow's plugins raise errors of many classes for a damaged file.
        raise ValueError(f"not a readable image: {error or type(error).__name__}") from error
    name = blake2b(content, digest_size=10).hexdigest()
    path = folder / name[:2] / f"{name}.{suffix}"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return path.relative_to(folder).as_posix()
