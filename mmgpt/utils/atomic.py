"""Files and folders that appear under their name only when they are complete."""

import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part"  # what the name of an incomplete one ends in
# NAME.MACHINE-PROCESS-START-RANDOM.part: names that nobody else gives, and that say who writes.
OWN = re.compile(r".+\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-(?P<start>\d+)-[0-9a-f]{8}\.part")
LONGEST = 180  # file systems take names of 255 bytes


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Context manager that gives a path beside ``path`` to write a file or a folder to; it becomes ``path`` at the end.

    Its name is new each time, so that several processes can write the same file: the last one stays. It is on the disk
    before it gets its name, so that a power cut leaves the old content or the new one. A file that is there is
    replaced; a folder that is there has to be empty. When the block fails, or is interrupted, what it wrote is removed
    and ``path`` stays as it was; an OSError of the block that names no file then names ``path``.
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
    """A new path beside ``path`` for an incomplete one, which tells the process that writes it."""
    name = path.name.encode()[:LONGEST].decode(errors="ignore")
    owner = f"{_machine()}-{os.getpid()}-{_start(os.getpid())}"
    return path.with_name(f"{name}.{owner}-{secrets.token_hex(4)}{PART}")


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove the parts (of the file ``name``, or of all) that processes of this machine left which are dead now."""
    start = None if name is None else name.encode()[:LONGEST].decode(errors="ignore") + "."
    for path in list(folder.iterdir()):
        owner = OWN.fullmatch(path.name) if start is None or path.name.startswith(start) else None
        if owner and owner["machine"] == _machine() and _start(int(owner["process"])) != int(owner["start"]):
            with suppress(OSError):  # another process removes it as well
                remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _machine() -> str:
    """A short name of what process numbers belong to: the host, and the container on it."""
    with suppress(OSError):
        return _digest(f"{socket.gethostname()} {os.stat('/proc/self/ns/pid').st_ino}")
    return _digest(socket.gethostname())


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _start(process: int) -> int | None:
    """When a process started, in ticks since the machine did (0 where that is not known); None when it is not alive."""
    try:
        # Field 22; the second field, the command's name, may hold blanks and brackets.
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # alive, of another user
        pass
    return 0


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
