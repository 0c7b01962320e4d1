"""Weight files, read without running any code that they may hold."""

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
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from mmgpt.cli.description import ADAPTER, TRAINED, check_weights
from mmgpt.cli.files import read_settings

from .sharded import CheckpointException, join, read_shards

# As a header of safetensors names those that are no floats, or floats of one byte.
DTYPES = {
    **{
        f"{kind}{bits}": getattr(torch, f"{long}{bits}")
        for kind, long in (("I", "int"), ("U", "uint"))
        for bits in (8, 16, 32, 64)
    },
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
# In a folder, what open_clip and transformers look for, in their order.
LOADED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
STATE_KEYS = ("state_dict", "model_state_dict")
# What is in no tensor, and means another model with the same tensors: MultiModal-GPT's or our names, and peft's.
TUNING = {"lora_r": "r", "lora_alpha": "lora_alpha", "use_rslora": "use_rslora", "alpha_pattern": "alpha_pattern"}
TUNING.update({name: name for name in ("use_dora", "lora_bias", "bias", "rank_pattern")})
# What LoraConfig takes where a config does not say it.
DEFAULTS = {field.name: None if field.default is MISSING else field.default for field in fields(LoraConfig)}
# By which layers the LoRA of an exported folder is found, in peft's words.
TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


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
    zipfile.BadZipFile,
    zlib.error,
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
        match meta["shards"]:
            case {"folder": str(folder), "files": int(files)}:
                return join(content, _shards(Path(path), folder, files))
        raise ValueError(f"{path}: its meta.shards, {meta['shards']!r}, names no folder with so many files")
    return content


def read_file(path: str | os.PathLike, map_location: str = "cpu", mmap: bool = True) -> dict:
    """The content of one file; of a checkpoint in shards, what is beside the tensors. As `read_weights` otherwise."""
    if not Path(path).is_file():
        advice = ": addresses are not loaded, so download it first" if "://" in str(path) else ""
        raise FileNotFoundError(f"there is no file of weights {str(path)!r}{advice}")
    try:
        if str(path).endswith(".safetensors"):
            return load_file(path, device=map_location)
        check_archive(path)
        with torch.serialization.safe_globals(STAND_INS):
            content = torch.load(path, map_location, weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    except FAULTS as error:
        raise ValueError(f"{path} cannot be read as tensors and plain data: {_reason(str(error))}") from error
    return _plain(content)


def check_archive(path: str | os.PathLike) -> None:
    """Raises a ValueError where a part of a file of torch.save is not what was written; torch does not look at that."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"it is damaged: {damaged} in it is not what was written (its checksum differs)")


def kind_of(dtype: torch.dtype) -> str:
    """What the numbers of a dtype are: those of one kind can be cast into each other without another meaning."""
    if dtype.is_floating_point:
        return "floats" if dtype.itemsize > 1 else str(dtype)  # those of one byte have a scale beside them
    return "bools" if dtype == torch.bool else "complex numbers" if dtype.is_complex else "integers"


def is_finite(value: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor an infinite value."""
    if not value.is_floating_point() or not value.numel():
        return True
    value = value.float() if value.dtype.itemsize == 1 else value
    low, high = value.aminmax()  # twenty times as fast as isfinite over all; NaN goes through
    return bool(low.isfinite() & high.isfinite())


def check_index(folder: str | os.PathLike) -> None:
    """Raises unless each file that an index of sharded weights in a folder of transformers names is there.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: an index is damaged.
    """
    for index in sorted(Path(folder).glob("*.index.json")):
        files = read_settings(index).get("weight_map")
        if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
            raise ValueError(f"{index}: its weight_map does not tell which tensor is in which file")
        missing = [name for name in sorted(set(files.values())) if not (Path(folder) / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{index} names files that are missing: {', '.join(missing[:3])} ({len(missing)})")


def stored_dtypes(path: str | os.PathLike) -> dict[str, torch.dtype]:
    """Names and dtypes of the tensors in a file, or in those that open_clip or transformers load of a folder.

    Their values are not read, but the checksums of archives are compared. What torch wrote before it wrote archives is
    left out.

    Raises:
        ValueError: a file is damaged.
    """
    found: dict[str, torch.dtype] = {}
    for file in _files_of(Path(path)):
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, "pt") as content:
                    kinds = {name: content.get_slice(name).get_dtype() for name in content.keys()}  # noqa: SIM118
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{file} cannot be read as tensors: {error}") from error
            found |= {name: DTYPES.get(kind, torch.float32) for name, kind in kinds.items()}
        elif zipfile.is_zipfile(file):
            content = read_file(file)
            state = next((content[key] for key in STATE_KEYS if key in content), content)
            found |= {name: value.dtype for name, value in state.items() if isinstance(value, Tensor)}
    return found


def check_base(model: nn.Module, stored: dict[str, torch.dtype], source: str) -> None:
    """Raises a ValueError unless the weights that a library loaded into a model are finite, and floats in their files.

    The libraries cast whatever they find: integers become other weights, or zeros.

    Args:
        model: with the weights loaded.
        stored: of `stored_dtypes`.
        source: what a message names.
    """
    state = model.state_dict()
    floats = {name for name, value in state.items() if kind_of(value.dtype) == "floats"}
    for name, dtype in stored.items():
        if kind_of(dtype) != "floats" and _is_named(name, floats):
            raise ValueError(f"{source}: {name} holds {kind_of(dtype)}, and the model's weight floats")
    wrong = [name for name, value in state.items() if not is_finite(value)]
    if wrong:
        raise ValueError(f"{source}: {len(wrong)} tensors hold NaN or infinite values: {', '.join(wrong[:3])}")


def _files_of(path: Path) -> list[Path]:
    """The files of weights that open_clip or transformers load of a folder; a file is its own."""
    chosen = path if path.is_file() else next((path / name for name in LOADED if (path / name).is_file()), None)
    if chosen is None or chosen.suffix != ".json":
        return [] if chosen is None else [chosen]
    return [path / name for name in sorted(set(read_settings(chosen)["weight_map"].values()))]


def _is_named(name: str, parameters: set[str]) -> bool:
    """Whether a file's tensor is one of these, with something before its name in the file or in the model."""
    parts = name.split(".")
    tails = {".".join(parts[i:]) for i in range(len(parts))}
    return bool(tails & parameters) or any(each.endswith(f".{name}") for each in parameters)


def _shards(path: Path, folder: str, files: int) -> dict[str, Tensor]:
    """The tensors in so many files of a folder beside a checkpoint."""
    beside = path.resolve().with_name(folder)
    try:
        return read_shards(beside, files)
    except (*FAULTS, CheckpointException) as error:
        raise ValueError(f"{beside}, which belongs to {path}, cannot be read: {error}") from error


def _read_folder(folder: Path, map_location: str) -> dict:
    """The weights of an exported folder, all that its description names, and what its adapter says of itself."""
    known = check_weights(folder)
    files = [name for name in (ADAPTER, TRAINED) if name in known]
    if not files:
        raise FileNotFoundError(f"{folder} is no checkpoint: it has neither {ADAPTER} nor {TRAINED}, as exported ones")
    parts = [read_weights(folder / name, map_location) for name in files]
    twice = sorted(set.intersection(*map(set, parts))) if len(parts) > 1 else []
    if twice:
        raise ValueError(f"{folder}: {' and '.join(files)} both hold {twice[0]} ({len(twice)} such tensors)")
    state = {name: value for part in parts for name, value in part.items()}
    return {"state_dict": state, "tuning_config": _read_adapter(folder) if ADAPTER in files else {}}


def _read_adapter(folder: Path) -> dict:
    """What peft's description of an adapter, beside it, says of the LoRA. It is read here, and not given to peft."""
    file = folder / Path(ADAPTER).with_name("adapter_config.json")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: it says the rank and the scale of the adapter beside it")
    said = read_settings(file)
    if said.get("peft_type", "LORA") != "LORA":
        raise ValueError(f"{file} is of the kind {said['peft_type']!r}, not LORA")
    lacking = [field for field in ("r", "lora_alpha") if field not in said]
    if lacking:
        raise ValueError(f"{file} does not say {lacking[0]!r}, without which the adapter means nothing")
    named = {**TUNING, **dict(zip(TARGETS, TARGETS, strict=True))}
    return {key: said.get(field, DEFAULTS.get(field)) for key, field in named.items()}


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
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    ):
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{source} holds no tensors by name (nor under {' or '.join(STATE_KEYS)}), but {found}")
    tuning = (content.get("tuning_config") or _own_tuning(content)) if state is not content else None
    while isinstance(tuning, dict) and isinstance(tuning.get("tuning_config"), dict):
        tuning = tuning["tuning_config"]
    tuning = tuning if isinstance(tuning, dict) else None
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
