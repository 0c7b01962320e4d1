"""The folder of a run: whether it can be written, and the newest complete checkpoint in it."""

import errno
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mmgpt.utils.atomic import remove_abandoned

from .failures import DiskFault, is_disk_fault

LATEST = "latest.pth"
STOPPED = "stopped.pth"  # of a run that a signal ended
OWN_SHARDS = re.compile(r"(iter|epoch)_\d+\.shards")
SHARD_FILES = (".safetensors", ".safetensors.index.json", ".metadata")
CHECKPOINTS = ("iter_*.pth", "epoch_*.pth", STOPPED, LATEST)


def check_writable(folder: str | os.PathLike) -> None:
    """Make ``folder`` and try to write a file in it.

    Raises:
        ValueError: it cannot be made or written (DiskFault, where the disk is the reason); says why.
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
    """Raise a DiskFault if ``folder`` has not room for ``size`` bytes of a checkpoint: now, not after hours."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskFault(
            f"a checkpoint takes about {size / 1e6:.0f} MB, and the disk of {str(folder)!r} has {free / 1e6:.0f} MB "
            "left: make room, or choose another folder with --work-dir"
        )


def is_complete(path: Path) -> bool:
    """Whether a file of torch.save is there as a whole: the list of what is in it stands at its end."""
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.endswith("/data.pkl") for name in file.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def newest_checkpoint(folder: str | os.PathLike) -> tuple[Path | None, list[Path]]:
    """The complete checkpoint in ``folder`` that was written last, and the newer ones that are not complete.

    latest.pth is only one of the candidates: a run may have been killed between writing a checkpoint and naming it.
    """
    incomplete: list[Path] = []
    for path in sorted(_checkpoints(Path(folder)), key=_age, reverse=True):
        if is_complete(path):
            return path, incomplete
        incomplete.append(path)
    return None, incomplete


def remove_parts(folder: str | os.PathLike) -> None:
    """Remove what writing a checkpoint left behind in a process that was killed, and nothing that others made."""
    remove_abandoned(Path(folder))
    for path in Path(folder).glob("*.shards"):
        if OWN_SHARDS.fullmatch(path.name) and not path.with_suffix(".pth").exists():
            remove_shards(path)


def remove_shards(folder: Path) -> None:
    """Remove the folder of a sharded checkpoint; one that holds anything else stays."""
    if folder.is_dir() and all(path.name.endswith(SHARD_FILES) for path in folder.iterdir()):
        shutil.rmtree(folder)


def _checkpoints(folder: Path) -> Iterator[Path]:
    for pattern in CHECKPOINTS:
        yield from (path for path in folder.glob(pattern) if path.exists())


def _age(path: Path) -> tuple[int, int]:
    """When it was written; of two at the same time the one of more steps counts as the newer."""
    number = path.stem.partition("_")[2]
    try:
        return path.stat().st_mtime_ns, int(number) if number.isdigit() else -1
    except FileNotFoundError:  # removed in this moment, by a run that goes on
        return 0, -1
