"""Lock of a folder, so that one run at a time writes to it."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no fcntl.
    fcntl = None

NAME = ".lock"
# The environment variable in which a launcher passes a process its rank.
RANKS = {"pytorch": "RANK", "slurm": "SLURM_PROCID", "mpi": "OMPI_COMM_WORLD_RANK"}


def is_first_process(launcher: str) -> bool:
    """Whether this is the first process of a run, before the process group is initialized."""
    return int(os.environ.get(RANKS.get(launcher, ""), 0)) == 0


def was_deleted(folder: str | os.PathLike) -> bool:
    """Whether the folder that this run has locked was deleted (and perhaps created again) in the meantime."""
    return fcntl is not None and not (Path(folder) / NAME).exists()


@contextmanager
def locked(folder: str | os.PathLike, advice: str) -> Iterator[None]:
    """Context manager during which no other process can hold the lock of ``folder``.

    The operating system frees the lock when its process ends, however it ends; on network file systems too, if they
    have locks at all. The lock file names the process. Where the file system has no locks, a warning is printed.

    Raises:
        ValueError: another process holds the lock; names the process, and ends in ``advice``.
    """
    path = Path(folder) / NAME
    descriptor = _acquire(path, advice) if fcntl else None
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):  # The folder may have been deleted.
                path.unlink()
            os.close(descriptor)


def _acquire(path: Path, advice: str) -> int | None:
    """The descriptor of the locked file, or None where the file system has no locks.

    A POSIX lock belongs to one process: DataLoader workers that it forked do not hold the lock when it is killed.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise ValueError(f"{str(path.parent)!r} is in use by {holder or 'another process'}: {advice}") from error
        except OSError as error:
            os.close(descriptor)
            print(f"{path.parent} cannot be locked ({error.strerror}): let no other run write to it", file=sys.stderr)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        os.close(descriptor)  # The other process ended in the meantime, and removed this file.
    previous = _holder(descriptor)
    if previous:
        print(f"{path.parent} was left by {previous}, which did not end by itself: taken over")
    holder = dict(process=os.getpid(), host=socket.gethostname(), since=f"{datetime.now():%Y-%m-%d %H:%M:%S}")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    return descriptor


def _holder(descriptor: int) -> str:
    """Description of the process that wrote a lock file, for messages; empty for an empty file."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return ""
