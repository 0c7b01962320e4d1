"""What ends a run from outside the program: its messages and exit codes."""

import errno
import os
import traceback
from contextlib import suppress
from pathlib import Path

# sysexits.h's code for an error of reading or writing.
DISK = 74
# The disk is full, of a user's share too, or may not be written.
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}
# How torch and safetensors word a failing allocation where the error has no type of its own.
NO_MEMORY = ("can't allocate memory", "not enough memory", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
LESS = """out of memory: {reason}
What needs less, the cheapest first:
  train_dataloader.batch_size=1, and accumulative_counts larger by the same factor: the same training
  a smaller max_length of the training pipeline, or row_length of the collate_fn
  gradient checkpointing: about a third more time, a fraction of the activations
  the frozen weights in bfloat16 or in 4 bits (see docs/training.md)"""


class DiskFault(ValueError):
    """The disk of a run is full or cannot be written, found before anything was lost, or the folder is gone."""


class Stopped(Exception):
    """A signal ended the run: ``signum``, after ``step`` batches, with a checkpoint of them if ``saved``."""

    def __init__(self, signum: int, step: int, saved: bool = True) -> None:
        super().__init__(signum, step, saved)
        self.signum, self.step, self.saved = signum, step, saved


def is_disk_fault(error: BaseException) -> bool:
    """Whether a file could not be written, or read, for the disk's reasons."""
    return isinstance(error, DiskFault) or (isinstance(error, OSError) and error.errno in DISK_FAULTS)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's or the machine's memory did not suffice."""
    # By its name: torch is not imported yet when most users' mistakes are told.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def resource_message(error: BaseException) -> str | None:
    """What to tell a user about a full or read-only disk or too little memory; None when ``error`` is neither."""
    if isinstance(error, DiskFault):
        return str(error)
    if is_disk_fault(error):
        place = error.filename or "a file of the run"
        return f"{place}: {os.strerror(error.errno)}. What was complete is kept; a training goes on with --resume"
    if is_out_of_memory(error):
        return LESS.format(reason=(str(error).splitlines() or ["no reason given"])[0])
    return None


def log_end(error: BaseException) -> None:
    """Write what ended this process into the log of the run, whichever process it is, and for torchrun's summary.

    MMEngine opens the log's file in the first process only.
    """
    # A run has begun, and with it torch.
    from mmengine.dist import get_rank
    from mmengine.logging import MMLogger
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)
    path = MMLogger.get_current_instance().log_file
    if path and Path(path).is_file():
        lines = "".join(traceback.format_exception(error))
        # A full disk may be what ended it.
        with suppress(OSError), open(path, "a") as file:
            file.write(f"process {get_rank()} ended by {type(error).__name__}: {error}\n{lines}")
