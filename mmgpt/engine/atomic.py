"""Files and folders that appear under their name only when they are complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part"  # what the name of an incomplete one ends in


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A path beside ``path`` to write a file or a folder to, which becomes ``path`` when the block ends well.

    It is on the disk before it gets its name, so that a power cut leaves the old content or the new one. A file that is
    there is replaced; a folder that is there has to be empty. When the block fails, or is interrupted, what it wrote is
    removed and ``path`` stays as it was; an OSError of the block that names no file then names ``path``.
    """
    path = Path(path)
    part = path.with_name(path.name + PART)
    _remove(part)  # of a process that was killed
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        _sync(part)
        os.replace(part, path)
        _sync_entries(path.parent)
    except BaseException as error:
        _remove(part)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def _sync(path: Path) -> None:
    """Have a file, or all that is in a folder, written to the disk."""
    if path.is_symlink():
        return
    if path.is_dir():
        for each in path.iterdir():
            _sync(each)
        _sync_entries(path)
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_entries(folder: Path) -> None:
    """Have the names in a folder written to the disk, where its file system can do that (some of a network cannot)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
