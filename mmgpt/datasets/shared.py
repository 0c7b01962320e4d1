"""Samples that one process of a machine reads, and that all of its processes share."""

import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import numpy as np
from mmengine.dist import all_gather_object, get_rank, get_world_size

from mmgpt.utils.errors import SampleError

from .sample_bytes import SampleBytes

Result = TypeVar("Result")
COUNT = np.dtype(np.int64)


def load_once(load: Callable[[], SampleBytes]) -> SampleBytes:
    """What `load` returns. In a distributed run one process of each machine calls it, and all map the same bytes.

    The bytes go through a file in the temporary folder ($TMPDIR), from their reading until all have mapped it. All
    processes have to come here, in the same order, and wait for the one that reads: where that takes longer than their
    process group's timeout (10 minutes with NCCL), set a longer one (`env_cfg.dist_cfg.timeout`, in seconds).

    Raises:
        Exception: what `load` raised in one process, in all of them.
    """
    if get_world_size() == 1:
        return load()
    # One machine is where the same temporary folder is seen: containers may share the name of their host.
    folder = os.stat(tempfile.gettempdir())
    machine = (socket.gethostname(), folder.st_dev, folder.st_ino)
    machines = all_gather_object(machine)
    leader = machines.index(machine)
    with ExitStack() as files:
        path = _together(lambda: _write(load(), files) if get_rank() == leader else None)
        path = all_gather_object(path)[leader]
        return _together(lambda: _map(path))


def _together(step: Callable[[], Result]) -> Result:
    """What `step` returns here, once it has returned in every process; raises the error of any."""
    result, error = None, None
    try:
        result = step()
    except Exception as raised:
        error = raised
    for other in all_gather_object(_told(error)):
        if other is not None:
            raise error or other
    return result


def _told(error: Exception | None) -> Exception | None:
    """An error as the other processes can raise it: not every type can be pickled."""
    if isinstance(error, SampleError) or type(error) in (type(None), ValueError, KeyError, FileNotFoundError):
        return error
    return RuntimeError(f"rank {get_rank()}: {type(error).__name__}: {error}")


def _write(samples: SampleBytes, files: ExitStack) -> str:
    """The path of a new file that holds the samples, and that `files` removes."""
    file = files.enter_context(tempfile.NamedTemporaryFile(prefix="mmgpt-samples-"))
    for array in (np.array([len(samples)], COUNT), samples.ends, samples.data):
        file.write(array.data)
    file.flush()
    return file.name


def _map(path: str) -> SampleBytes:
    content = np.asarray(np.memmap(path, np.uint8, mode="r"))
    count = int(content[: COUNT.itemsize].view(COUNT)[0])
    start = COUNT.itemsize * (1 + count)
    return SampleBytes(content[start:], content[COUNT.itemsize : start].view(COUNT))
