"""Files and folders that appear under their name only when they are complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A path beside ``path`` to write a file or a folder to, which becomes ``path`` when the block ends well.

    A file that is there is replaced; a folder that is there has to be empty. When the block fails, or is interrupted,
    what it wrote is removed and ``path`` stays as it was.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    _remove(part)  # of a process that was killed
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        _remove(part)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
