"""Safe reading of weight files: no code in a file is run."""

import os
import pickle
import re
import struct
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import MISSING, fields
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmgpt.cli.description import ADAPTER, TRAINED, check_weights
from mmgpt.cli.files import read_settings

from .sharded import CheckpointException, merge_shards, read_shards

STATE_KEYS = ("state_dict", "model_state_dict")
# LoRA settings that are in no tensor and change the model: their names in MultiModal-GPT or here, and in peft.
TUNING = {"lora_r": "r", "lora_alpha": "lora_alpha", "use_rslora": "use_rslora", "alpha_pattern": "alpha_pattern"}
TUNING.update({name: name for name in ("use_dora", "lora_bias", "bias", "rank_pattern")})
# LoraConfig's defaults for fields that a config leaves out.
DEFAULTS = {field.name: None if field.default is MISSING else field.default for field in fields(LoraConfig)}
# peft's fields that choose the layers with LoRA.
TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
# Errors that torch's and safetensors' readers raise for a damaged file.
READ_ERRORS = (
    pickle.UnpicklingError,
    SafetensorError,
    EOFError,
    RuntimeError,
    TypeError,
    AttributeError,
    ValueError,
    LookupError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class _ConfigDict:
    """Stand-in for mmengine's ConfigDict in a pickle."""

    def __new__(cls, *items):
        # MMEngine 0.7 pickles pairs, 0.10 a dict. torch's reader sets further items on an OrderedDict only.
        return OrderedDict(items[0] if len(items) == 1 and isinstance(items[0], dict) else items)


class _Config:
    """Stand-in for mmengine's Config in a pickle."""

    def __setstate__(self, state: tuple) -> None:
        self.values = state[0]


# MultiModal-GPT's checkpoints hold configs of MMEngine. torch's weights-only reader builds these two classes in place
# of MMEngine's, and refuses every other class.
STAND_INS = [
    (_ConfigDict, "mmengine.config.config.ConfigDict"),
    (_Config, "mmengine.config.config.Config"),
]


def read_weights(path: str | os.PathLike, map_location: str = "cpu", mmap: bool = True) -> dict:
    """The content of a file of safetensors or of torch.save, or of an exported folder.

    Args:
        path: the file or folder.
        map_location: device of the tensors.
        mmap: memory-map the tensors where the format allows it, which saves a copy in memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds more than tensors, plain data and MMEngine's configs (read as dicts).
    """
    if Path(path).is_dir():
        return _read_folder(Path(path), map_location)
    content = read_file(path, map_location, mmap)
    meta = content.get("meta") if isinstance(content, dict) else None
    if isinstance(meta, dict) and "shards" in meta:
        match meta["shards"]:
            case {"folder": str(folder), "files": int(files)}:
                shards = Path(path).resolve().with_name(folder)
                try:
                    return merge_shards(content, read_shards(shards, files))
                except (*READ_ERRORS, CheckpointException) as error:
                    raise ValueError(f"{shards}, which belongs to {path}, cannot be read: {error}") from error
        raise ValueError(f"{path}: its meta.shards, {meta['shards']!r}, names no folder with so many files")
    return content


def read_file(path: str | os.PathLike, map_location: str = "cpu", mmap: bool = True) -> dict:
    """The content of one file. Same as `read_weights`, except that the shards of a checkpoint are not read."""
    if not Path(path).is_file():
        advice = ": addresses are not loaded, so download it first" if "://" in str(path) else ""
        raise FileNotFoundError(f"there is no file of weights {str(path)!r}{advice}")
    try:
        if str(path).endswith(".safetensors"):
            return load_file(path, device=map_location)
        check_archive(path)
        with torch.serialization.safe_globals(STAND_INS):
            content = torch.load(path, map_location, weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    except READ_ERRORS as error:
        # torch's own message advises to read the file unsafely.
        message = str(error)
        refused = re.search(r"GLOBAL (\S+)", message)
        if refused:
            reason = f"it asks for {refused[1]} to be run or built, which is refused"
        elif "Weights only" in message or "WeightsUnpickler" in message:
            reason = "it is damaged, or holds objects that are refused"
        else:
            reason = message.splitlines()[0] if message else "it is damaged"
        raise ValueError(f"{path} cannot be read as tensors and plain data: {reason}") from error
    return _plain(content)


def check_archive(path: str | os.PathLike) -> None:
    """Raises a ValueError where a checksum in a file of torch.save differs; torch does not compare them."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"it is damaged: {damaged} in it is not what was written (its checksum differs)")


def _read_folder(folder: Path, map_location: str) -> dict:
    """Tensors and LoRA settings of an exported folder, with every file that its description lists."""
    entries = check_weights(folder)
    files = [name for name in (ADAPTER, TRAINED) if name in entries]
    if not files:
        raise FileNotFoundError(f"{folder} is not a checkpoint: an exported folder has {ADAPTER} or {TRAINED}")
    state: dict[str, Tensor] = {}
    for name in files:
        tensors = read_weights(folder / name, map_location)
        duplicates = sorted(state.keys() & tensors.keys())
        if duplicates:
            both = " and ".join(files)
            raise ValueError(f"{folder}: {both} both hold {duplicates[0]} ({len(duplicates)} such tensors)")
        state |= tensors
    if ADAPTER not in files:
        return {"state_dict": state, "tuning_config": {}}

    # peft does not read the adapter's config: it would take other settings from it as well.
    file = folder / Path(ADAPTER).with_name("adapter_config.json")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: it has the rank and the scale of the adapter beside it")
    config = read_settings(file)
    if config.get("peft_type", "LORA") != "LORA":
        raise ValueError(f"{file} is of the kind {config['peft_type']!r}, not LORA")
    missing = [field for field in ("r", "lora_alpha") if field not in config]
    if missing:
        raise ValueError(f"{file} lacks {missing[0]!r}, without which the adapter means nothing")
    fields_by_key = {**TUNING, **dict(zip(TARGETS, TARGETS, strict=True))}
    tuning = {key: config.get(field, DEFAULTS.get(field)) for key, field in fields_by_key.items()}
    return {"state_dict": state, "tuning_config": tuning}


def tensors_of(content: object) -> object:
    """The state dict in a file's content: under 'state_dict' or 'model_state_dict', or else the content itself."""
    if not isinstance(content, dict):
        return content
    return next((content[key] for key in STATE_KEYS if key in content), content)


def state_and_tuning(content: dict, source: str) -> tuple[dict[str, Tensor], dict | None]:
    """A file's tensors by name, without DDP's 'module.', and the settings of the LoRA that they belong to, if any.

    MultiModal-GPT's files hold them as a tuning config, checkpoints of tools/train.py in the settings of their run.

    Args:
        content: a file's content: tensors by name, or a dict with these under 'state_dict' or 'model_state_dict'.
        source: the file's name, for messages.

    Raises:
        ValueError: there are no tensors in it.
    """
    state = tensors_of(content)
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    ):
        summary = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{source} holds no tensors by name (nor under {' or '.join(STATE_KEYS)}), but {summary}")
    tuning = None
    if state is not content:
        tuning = content.get("tuning_config")
        while isinstance(tuning, dict) and isinstance(tuning.get("tuning_config"), dict):
            tuning = tuning["tuning_config"]
        if not tuning:
            lora = content
            for key in ("meta", "settings", "config", "model", "lora"):
                lora = lora.get(key) if isinstance(lora, dict) else None
            tuning = lora and {key: lora.get(field, DEFAULTS[field]) for key, field in TUNING.items()}
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return dict(state), tuning if isinstance(tuning, dict) else None


def _plain(value: object) -> object:
    """A value with plain dicts in place of the stand-ins for MMEngine's configs."""
    if isinstance(value, _Config):
        return _plain(value.values)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value
