"""Sharded checkpoints: a folder of safetensors files, into which each process writes its shards of the tensors.

The format is that of torch's distributed checkpoints in safetensors, which any number of processes can read.
"""

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from torch import Tensor
from torch.distributed import checkpoint
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from mmgpt.cli.work_dir import remove_shards
from mmgpt.utils.atomic import atomic_write


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes the shards that this process holds. All processes call it; the folder appears when all have written.

    Raises:
        OSError: a process could not write.
        ValueError: the processes did not write into the same folder.
    """
    if is_main_process():
        remove_shards(folder)  # a run that was killed before it wrote its checkpoint may have left some
    with atomic_write(folder) if is_main_process() else nullcontext() as temporary:
        names = [temporary]
        broadcast_object_list(names)
        temporary = names[0]
        try:
            writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
            checkpoint.save(dict(tensors), storage_writer=writer)
        except CheckpointException as error:  # holds the errors of all processes, and is a BaseException itself
            raise next(iter(error.failures.values()))[0] from error
        if is_main_process():
            _check_files(temporary, get_world_size())


def read_shards(folder: Path, files: int) -> dict[str, Tensor]:
    """The whole tensors of a folder with this many files, on the CPU.

    Raises:
        FileNotFoundError: the folder is not there.
        ValueError: the folder has another number of files.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the checkpoint's tensors are in a folder beside it, which is missing: {folder}")
    _check_files(folder, files)
    reader = HuggingFaceStorageReader(str(folder))
    metadata = reader.read_metadata().state_dict_metadata
    tensors = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in metadata.items()}
    with warnings.catch_warnings():
        # Each process reads the tensors by itself.
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        checkpoint.load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def _check_files(folder: Path, files: int) -> None:
    count = len(list(folder.glob("*.safetensors")))
    if count != files:
        raise ValueError(
            f"{folder} has the shards of {count} processes, expected {files}: all processes write to one folder, which "
            "must be on a file system that all machines share"
        )


def merge_shards(content: dict, tensors: Mapping[str, Tensor]) -> dict:
    """A checkpoint's content with the tensors of its shards, named 'state_dict.NAME' or 'optimizer.INDEX.NAME'."""
    for key, tensor in tensors.items():
        section, _, name = key.partition(".")
        if section == "state_dict":
            content[section][name] = tensor
        else:
            index, _, name = name.partition(".")
            content[section]["state"].setdefault(int(index), {})[name] = tensor
    return content
