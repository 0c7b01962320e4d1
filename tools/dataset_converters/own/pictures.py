"""Pictures that come as bytes: shards of many, and the files that are made of them."""

import io
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from mmgpt.datasets.image_files import is_hidden


def shards(source: Path, suffix: str) -> list[Path]:
    """The file itself, or those of a folder (and of the folders within) that end so, in order, hidden ones left out.

    Raises:
        ValueError: the folder holds none.
    """
    found = sorted(visible(source, f"*{suffix}")) if source.is_dir() else [source]
    if not found:
        raise ValueError(f"{source} holds no {suffix} file")
    return found


def visible(folder: Path, pattern: str) -> Iterator[Path]:
    """The paths below a folder whose names match a pattern and that are not hidden."""
    return (path for path in folder.rglob(pattern) if not is_hidden(path.relative_to(folder)))


def keep(content: bytes, folder: Path) -> str:
    """Writes a picture into a folder and returns its path there.

    Its name is made of what it holds, so that the same picture is one file, and no name of the source is a path here.

    Raises:
        ValueError: it is no picture.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            suffix = image.format.lower()
    # Pillow's plugins raise whatever their reading of a damaged file runs into.
    except Exception as error:
        raise ValueError(f"no picture that can be read: {error or type(error).__name__}") from error
    name = blake2b(content, digest_size=10).hexdigest()
    path = folder / name[:2] / f"{name}.{suffix}"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return path.relative_to(folder).as_posix()
