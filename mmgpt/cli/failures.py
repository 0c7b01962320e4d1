"""Failures that come from outside of the program (disk, memory, signals): their messages and exit codes."""

import errno
import os
import traceback
from contextlib import suppress
from pathlib import Path

# Exit code for an error of reading or writing, as in sysexits.h.
DISK = 74
# Errors of a disk that is full, that may not be written, or on which the user's quota is used up.
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}
# Texts of a failed allocation in torch and safetensors, where the error has no type of its own.
NO_MEMORY = ("can't allocate memory", "not enough memory", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
OUT_OF_MEMORY = """out of memory: {reason}
To use less memory, the cheapest first:
  train_dataloader.batch_size=1, and accumulative_counts larger by the same factor: the same training
  a smaller max_length of the training pipeline, or row_length of the collate_fn
  gradient checkpointing: about a third more time, a fraction of the activations
  the frozen weights in bfloat16 or in 4 bits (see docs/training.md)"""


class DiskFault(ValueError):
    """Error of a run whose disk is full or cannot be written, or whose folder is gone; raised before work is lost."""


class Stopped(Exception):
    """Exception that ends a run at a signal: ``signum``, after ``step`` batches, with a checkpoint if ``saved``."""

    def __init__(self, signum: int, step: int, saved: bool = True) -> None:
        super().__init__(signum, step, saved)
        self.signum, self.step, self.saved = signum, step, saved


def is_disk_fault(error: BaseException) -> bool:
    """Whether a file could not be written or read because of its disk."""
    return isinstance(error, DiskFault) or (isinstance(error, OSError) and error.errno in DISK_FAULTS)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error is a lack of memory, on a GPU or on the CPU."""
    # torch's error is recognised by its name, since torch is not imported yet when most users' mistakes are reported.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def resource_message(error: BaseException) -> str | None:
    """Message for the user about a full or read-only disk or too little memory; None when ``error`` is neither."""
    if isinstance(error, DiskFault):
        return str(error)
    if is_disk_fault(error):
        file = error.filename or "a file of the run"
        return f"{file}: {os.strerror(error.errno)}. Complete files are still there; a training continues with --resume"
    if is_out_of_memory(error):
        return OUT_OF_MEMORY.format(reason=(str(error).splitlines() or ["no reason given"])[0])
    return None


def log_end(error: BaseException) -> None:
    """Write the error that ends this process into the log of the run, and pass it to torchrun for its summary.

    Any process can write it, although MMEngine opens the log file in the first process only.
    """
    # The run has imported torch already.
    from mmengine.dist import get_rank
    from mmengine.logging import MMLogger
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)
    path = MMLogger.get_current_instance().log_file
    if path and Path(path).is_file():
        lines = "".join(traceback.format_exception(error))
        # The error may be a full disk, to which nothing can be written.
        with suppress(OSError), open(path, "a") as file:
            file.write(f"process {get_rank()} ended by {type(error).__name__}: {error}\n{lines}")
