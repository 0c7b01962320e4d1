"""The work directory of a run: tests of its disk, and the newest complete checkpoint in it."""

import errno
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from mmgpt.utils.atomic import remove_abandoned

from .failures import DiskFault, is_disk_fault

LATEST = "latest.pth"
STOPPED = "stopped.pth"  # checkpoint of a run that a signal ended
SHARDS_NAME = re.compile(r"(iter|epoch)_\d+\.shards")
SHARD_FILES = (".safetensors", ".safetensors.index.json", ".metadata")
CHECKPOINTS = ("iter_*.pth", "epoch_*.pth", STOPPED, LATEST)


def check_writable(folder: str | os.PathLike) -> None:
    """Create ``folder`` and try to write a file in it.

    Raises:
        ValueError: the folder cannot be created or written (DiskFault, where the disk is the reason).
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe)
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        kind = DiskFault if is_disk_fault(error) else ValueError
        raise kind(f"the work directory {str(folder)!r} cannot be written ({reason}); see --work-dir") from error


def check_space(folder: str | os.PathLike, size: int) -> None:
    """Raise a DiskFault if ``folder`` has no room for a checkpoint of ``size`` bytes, now instead of after hours."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskFault(
            f"a checkpoint takes about {size / 1e6:.0f} MB, and the disk of {str(folder)!r} has {free / 1e6:.0f} MB "
            "left: make room, or choose another folder with --work-dir"
        )


def is_complete(path: Path) -> bool:
    """Whether a file of torch.save exists and is complete, which shows in the archive's directory at its end."""
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.endswith("/data.pkl") for name in file.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def newest_checkpoint(folder: str | os.PathLike) -> tuple[Path | None, list[Path]]:
    """The complete checkpoint in ``folder`` that was written last, and the newer ones that are incomplete.

    latest.pth is only one of the candidates: a run may be killed after it wrote a checkpoint and before it linked it.
    """

    def age(path: Path) -> tuple[int, int]:
        # If two files were written at the same time, the one of more steps counts as the newer.
        number = path.stem.partition("_")[2]
        try:
            return path.stat().st_mtime_ns, int(number) if number.isdigit() else -1
        except FileNotFoundError:  # A run that goes on may remove the file at this moment.
            return 0, -1

    paths = [path for pattern in CHECKPOINTS for path in Path(folder).glob(pattern) if path.exists()]
    incomplete: list[Path] = []
    for path in sorted(paths, key=age, reverse=True):
        if is_complete(path):
            return path, incomplete
        incomplete.append(path)
    return None, incomplete


def remove_incomplete(folder: str | os.PathLike) -> None:
    """Remove the incomplete checkpoints that killed processes left behind, and no other files."""
    remove_abandoned(Path(folder))
    for path in Path(folder).glob("*.shards"):
        if SHARDS_NAME.fullmatch(path.name) and not path.with_suffix(".pth").exists():
            remove_shards(path)


def remove_shards(folder: Path) -> None:
    """Remove the folder of a sharded checkpoint, unless it holds other files, too."""
    if folder.is_dir() and all(path.name.endswith(SHARD_FILES) for path in folder.iterdir()):
        shutil.rmtree(folder)
