"""Weight files, read without running any code that they may hold."""

import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from dataclasses import MISSING, fields
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmgpt.engine.json_file import read_json_object

from .shards import CheckpointException, join, read_shards

# What `mmgpt.apis.export` writes into a folder: LoRA in peft's own format, and every other trained tensor.
ADAPTER, TRAINED = "adapter/adapter_model.safetensors", "trained.safetensors"
STATE_KEYS = ("state_dict", "model_state_dict")
# What is in no tensor, and means another model with the same tensors: MultiModal-GPT's or our names, and peft's.
TUNING = {"lora_r": "r", "lora_alpha": "lora_alpha", "use_rslora": "use_rslora", "alpha_pattern": "alpha_pattern"}
# What LoraConfig takes where a config does not say it.
DEFAULTS = {field.name: None if field.default is MISSING else field.default for field in fields(LoraConfig)}


# What a damaged file can end in, by torch's and safetensors' readers.
FAULTS = (
    pickle.UnpicklingError,
    SafetensorError,
    EOFError,
    RuntimeError,
    TypeError,
    AttributeError,
    ValueError,
    LookupError,
    struct.error,
)


class _ConfigDict:
    """Stands in for mmengine's ConfigDict in a pickle."""

    def __new__(cls, *items):
        # MMEngine 0.7 gives pairs, 0.10 a dict; torch's reader sets further items on an OrderedDict, not on ours.
        return OrderedDict(items[0] if len(items) == 1 and isinstance(items[0], dict) else items)


class _Config:
    """Stands in for mmengine's Config in a pickle."""

    def __setstate__(self, state: tuple) -> None:
        self.values = state[0]


# MultiModal-GPT's checkpoints hold such objects. torch's weights-only reader takes these names for our two classes, and
# refuses every other.
STAND_INS = [
    (_ConfigDict, "mmengine.config.config.ConfigDict"),
    (_Config, "mmengine.config.config.Config"),
]


def read_weights(path: str | os.PathLike, map_location: str = "cpu", mmap: bool = True) -> dict:
    """The content of a file of safetensors or of torch.save, or of an exported folder.

    Args:
        path: the file or folder.
        map_location: device of the tensors.
        mmap: leave the tensors in the file until they are used, where its format allows it: the memory of a copy saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds anything but tensors, plain data and MMEngine's configs (given as dicts).
    """
    if Path(path).is_dir():
        return _read_folder(Path(path), map_location)
    content = read_file(path, map_location, mmap)
    meta = content.get("meta") if isinstance(content, dict) else None
    if isinstance(meta, dict) and "shards" in meta:
        return join(content, _shards(Path(path), **meta["shards"]))
    return content


def read_file(path: str | os.PathLike, map_location: str = "cpu", mmap: bool = True) -> dict:
    """The content of one file; of a checkpoint in shards, what is beside the tensors. As `read_weights` otherwise."""
    if not Path(path).is_file():
        advice = ": addresses are not loaded, so download it first" if "://" in str(path) else ""
        raise FileNotFoundError(f"there is no file of weights {str(path)!r}{advice}")
    try:
        if str(path).endswith(".safetensors"):
            return load_file(path, device=map_location)
        with torch.serialization.safe_globals(STAND_INS):
            content = torch.load(path, map_location, weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    except FAULTS as error:
        raise ValueError(f"{path} cannot be read as tensors and plain data: {_reason(str(error))}") from error
    return _plain(content)


def _shards(path: Path, folder: str, files: int) -> dict[str, Tensor]:
    """The tensors in so many files of a folder beside a checkpoint."""
    beside = path.resolve().with_name(folder)
    try:
        return read_shards(beside, files)
    except (*FAULTS, CheckpointException) as error:
        raise ValueError(f"{beside}, which belongs to {path}, cannot be read: {error}") from error


def _read_folder(folder: Path, map_location: str) -> dict:
    files = [folder / name for name in (ADAPTER, TRAINED) if (folder / name).is_file()]
    if not files:
        raise FileNotFoundError(f"{folder} is no exported model: it has neither {ADAPTER} nor {TRAINED}")
    state = {name: value for file in files for name, value in read_weights(file, map_location).items()}
    description = folder / Path(ADAPTER).with_name("adapter_config.json")
    adapter = read_json_object(description) if description.is_file() else {}
    tuning = {key: adapter[field] for key, field in TUNING.items() if field in adapter}
    return {"state_dict": state, "tuning_config": tuning}


def state_and_tuning(content: dict, source: str) -> tuple[dict[str, Tensor], dict | None]:
    """A file's tensors by name, without DDP's 'module.', and what stands beside them of the LoRA that they belong to.

    MultiModal-GPT has a tuning config there, our trainings the settings of the run.

    Args:
        content: of the file: the tensors themselves, or a dict with them under 'state_dict' or 'model_state_dict'.
        source: the file's name, for messages.

    Raises:
        ValueError: there are no tensors in it.
    """
    state = content
    if isinstance(content, dict):
        state = next((content[key] for key in STATE_KEYS if key in content), content)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{source} holds no tensors by name (nor under {' or '.join(STATE_KEYS)}), but {found}")
    tuning = (content.get("tuning_config") or _own_tuning(content)) if state is not content else None
    while isinstance(tuning, dict) and isinstance(tuning.get("tuning_config"), dict):
        tuning = tuning["tuning_config"]
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return dict(state), tuning


def _own_tuning(content: dict) -> dict | None:
    """The same of a checkpoint of tools/train.py, which keeps the settings of its run."""
    part = content
    for key in ("meta", "settings", "config", "model", "lora"):
        part = part.get(key) if isinstance(part, dict) else None
    return part and {key: part.get(field, DEFAULTS[field]) for key, field in TUNING.items()}


def _reason(message: str) -> str:
    """What torch's reader found; its advice to read the file unsafely is left out."""
    found = re.search(r"GLOBAL (\S+)", message)
    if found:
        return f"it asks for {found[1]} to be run or built, which is refused"
    if "Weights only" in message or "WeightsUnpickler" in message:
        return "it is damaged, or holds objects that are refused"
    return message.splitlines()[0] if message else "it is damaged"


def _plain(value: object) -> object:
    """MMEngine's stand-ins as plain dicts; everything else as it is."""
    if isinstance(value, _Config):
        return _plain(value.values)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value
