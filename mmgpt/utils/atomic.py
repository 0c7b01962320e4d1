"""Atomic writes: files and folders that appear under their name only when they are complete."""

import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part"  # suffix of the temporary names of files and folders
# NAME.MACHINE-PROCESS-START-RANDOM.part: a name that no user gives, and that identifies the writing process.
PART_NAME = re.compile(r".+\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-(?P<start>\d+)-[0-9a-f]{8}\.part")
MAX_NAME = 180  # in bytes; file systems allow 255 for the whole name


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Context manager that returns a temporary path, whose file or folder is renamed to ``path`` at the end.

    The temporary name is new each time, so that several processes can write the same file: the last one stays. The
    content is synced to the disk before it is renamed, so that a power cut leaves the old content or the new one. An
    existing file is replaced; an existing folder has to be empty. When the block fails or is interrupted, the temporary
    file is removed and ``path`` stays as it was; an OSError of the block that names no file then names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent, path.name)
    part = part_path(path)
    try:
        yield part
        _sync(part)
        os.replace(part, path)
        _sync_entries(path.parent)
    except BaseException as error:
        remove(part)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def part_path(path: Path) -> Path:
    """A new temporary path beside ``path``, whose name identifies the process that writes it."""
    name = path.name.encode()[:MAX_NAME].decode(errors="ignore")
    owner = f"{_machine()}-{os.getpid()}-{_start(os.getpid())}"
    return path.with_name(f"{name}.{owner}-{secrets.token_hex(4)}{PART}")


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files (of the file ``name``, or of all) of processes of this machine that are dead now."""
    start = None if name is None else name.encode()[:MAX_NAME].decode(errors="ignore") + "."
    for path in list(folder.iterdir()):
        owner = PART_NAME.fullmatch(path.name) if start is None or path.name.startswith(start) else None
        if owner and owner["machine"] == _machine() and _start(int(owner["process"])) != int(owner["start"]):
            with suppress(OSError):  # Another process may remove the same file.
                remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _machine() -> str:
    """Digest of the machine that process numbers belong to: the host, and the container on it."""
    with suppress(OSError):
        return _digest(f"{socket.gethostname()} {os.stat('/proc/self/ns/pid').st_ino}")
    return _digest(socket.gethostname())


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _start(process: int) -> int | None:
    """Start time of a process in ticks since boot (0 where it is unknown); None when the process is not alive."""
    try:
        # The start time is field 22; field 2, the command's name, may contain blanks and brackets.
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # The process is alive and belongs to another user.
        pass
    return 0


def _sync(path: Path) -> None:
    """Sync a file, or everything in a folder, to the disk."""
    if path.is_symlink():
        return
    if path.is_dir():
        for entry in path.iterdir():
            _sync(entry)
        _sync_entries(path)
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_entries(folder: Path) -> None:
    """Sync the names in a folder to the disk, where its file system can do that (some network file systems cannot)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
