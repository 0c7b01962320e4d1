"""Loading of samples once per node: one process reads the file, and all processes share the memory map."""

import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from mmengine.dist import all_gather_object, get_rank, get_world_size

from mmgpt.utils.errors import SampleError

from .serialized import SerializedSamples

Result = TypeVar("Result")


def load_once(load: Callable[[], SerializedSamples]) -> SerializedSamples:
    """Samples returned by `load`, which one process of each node calls in a distributed run; all map the same bytes.

    The bytes go through a file in the temporary folder ($TMPDIR), which is removed when all processes have mapped it.
    See `once_per_node`.
    """
    if get_world_size() == 1:
        return load()
    with ExitStack() as files:
        path = once_per_node(lambda: _write(load(), files))
        return _in_all_processes(lambda: SerializedSamples.map(path))


def once_per_node(step: Callable[[], Result]) -> Result:
    """Result of `step`, which one process of each node calls in a distributed run and sends to the others.

    All processes must call this function, in the same order, and wait for the one that works. Where that takes
    longer than the timeout of the process group (10 minutes with NCCL), set a longer one (`env_cfg.dist_cfg.timeout`,
    seconds).

    Raises:
        Exception: the error that `step` raised in one process, raised in all of them.
    """
    if get_world_size() == 1:
        return step()
    # Processes share a node if they see the same temporary folder: containers may have the same host name.
    folder = os.stat(tempfile.gettempdir())
    node = (socket.gethostname(), folder.st_dev, folder.st_ino)
    leader = all_gather_object(node).index(node)
    result = _in_all_processes(lambda: step() if get_rank() == leader else None)
    return all_gather_object(result)[leader]


def _in_all_processes(step: Callable[[], Result]) -> Result:
    """Result of `step` in this process, after every process has finished it; raises an error of any process."""
    result, error = None, None
    try:
        result = step()
    except Exception as step_error:
        error = step_error
    # Not every type of error can be pickled.
    portable = error
    if error is not None and not isinstance(error, SampleError):
        if type(error) not in (ValueError, KeyError, FileNotFoundError):
            portable = RuntimeError(f"rank {get_rank()}: {type(error).__name__}: {error}")
    for other_error in all_gather_object(portable):
        if other_error is not None:
            raise error or other_error
    return result


def _write(samples: SerializedSamples, files: ExitStack) -> str:
    """Path of a new file with samples; closing `files` removes the file."""
    file = files.enter_context(tempfile.NamedTemporaryFile(prefix="mmgpt-samples-"))
    samples.write(file)
    file.flush()
    return file.name
