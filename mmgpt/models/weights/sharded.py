"""Tensors of which several processes have a part each, in a folder of safetensors files: one of each process.

It is the format of torch's distributed checkpoints, in the safetensors form, which any number of processes can read.
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
    """Write the own part of some sharded tensors. All processes call it; the folder appears when all have written.

    Raises:
        OSError: a process could not write.
        ValueError: not all wrote into the same folder.
    """
    if is_main_process():
        remove_shards(folder)  # of a run that was killed before it wrote the checkpoint
    with atomic_write(folder) if is_main_process() else nullcontext() as part:
        names = [part]
        broadcast_object_list(names)
        part = names[0]
        try:
            checkpoint.save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(part), save_distributed=True))
        except CheckpointException as error:  # no Exception; it holds those of all processes
            raise next(iter(error.failures.values()))[0] from error
        if is_main_process():
            _check_files(part, get_world_size())


def read_shards(folder: Path, files: int) -> dict[str, Tensor]:
    """The tensors of a folder as a whole, on the CPU.

    Raises:
        FileNotFoundError: the folder is not there.
        ValueError: it has another number of files.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the checkpoint's tensors are in a folder beside it, which is missing: {folder}")
    _check_files(folder, files)
    reader = HuggingFaceStorageReader(str(folder))
    found = reader.read_metadata().state_dict_metadata
    tensors = {name: torch.empty(each.size, dtype=each.properties.dtype) for name, each in found.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it is meant
        checkpoint.load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def _check_files(folder: Path, files: int) -> None:
    found = len(list(folder.glob("*.safetensors")))
    if found != files:
        raise ValueError(
            f"{folder} has the parts of {found} processes, and there were {files}: all write to one folder, "
            "which machines have to have in common"
        )


def join(content: dict, tensors: Mapping[str, Tensor]) -> dict:
    """A checkpoint with the tensors of its shards, named 'state_dict.NAME' or 'optimizer.PLACE.NAME', put in."""
    for path, tensor in tensors.items():
        part, _, name = path.partition(".")
        if part == "state_dict":
            content[part][name] = tensor
        else:
            place, _, name = name.partition(".")
            content[part]["state"].setdefault(int(place), {})[name] = tensor
    return content
