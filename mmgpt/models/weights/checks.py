"""Checks of weights that a library loads by itself: their files are complete and hold finite floats.

open_clip and transformers cast what they find in a file: integers become other weights, or zeros.
"""

import os
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mmgpt.cli.files import read_settings

from .reader import read_file, tensors_of

# Names of dtypes in a header of safetensors.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
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
# Files that open_clip and transformers look for in a folder, in their order.
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def kind_of(dtype: torch.dtype) -> str:
    """The kind of numbers of a dtype; numbers of one kind keep their meaning when they are cast into each other."""
    if dtype.is_floating_point:
        return "floats" if dtype.itemsize > 1 else str(dtype)  # floats of one byte have a scale beside them
    return "bools" if dtype == torch.bool else "complex numbers" if dtype.is_complex else "integers"


def is_finite(value: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor an infinite value."""
    if not value.is_floating_point() or not value.numel():
        return True
    value = value.float() if value.dtype.itemsize == 1 else value
    low, high = value.aminmax()  # 20 times as fast as isfinite on all values; NaN is passed on
    return bool(low.isfinite() & high.isfinite())


def check_index(folder: str | os.PathLike) -> None:
    """Checks that a folder of transformers has all files that its index of sharded weights names.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: an index is damaged.
    """
    for index in sorted(Path(folder).glob("*.index.json")):
        files = read_settings(index).get("weight_map")
        if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
            raise ValueError(f"{index}: its weight_map does not map tensors to files")
        missing = [name for name in sorted(set(files.values())) if not (Path(folder) / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{index} names files that are missing: {', '.join(missing[:3])} ({len(missing)})")


def stored_dtypes(path: str | os.PathLike) -> dict[str, torch.dtype]:
    """Dtypes, by name, of the tensors in a file, or in the files that open_clip or transformers load from a folder.

    The values in safetensors files are not read; the checksums of torch's archives are compared. Files that torch wrote
    before it wrote archives are left out.

    Raises:
        ValueError: a file is damaged.
    """
    path = Path(path)
    candidates = [path] if path.is_file() else [path / name for name in WEIGHT_FILES]
    files = [file for file in candidates if file.is_file()][:1]
    if files and files[0].suffix == ".json":
        files = [path / name for name in sorted(set(read_settings(files[0])["weight_map"].values()))]
    dtypes: dict[str, torch.dtype] = {}
    for file in files:
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, "pt") as content:
                    kinds = {name: content.get_slice(name).get_dtype() for name in content.keys()}  # noqa: SIM118
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{file} cannot be read as tensors: {error}") from error
            dtypes |= {name: DTYPES.get(kind, torch.float32) for name, kind in kinds.items()}
        elif zipfile.is_zipfile(file):
            state = tensors_of(read_file(file))
            dtypes |= {name: value.dtype for name, value in state.items() if isinstance(value, Tensor)}
    return dtypes


def check_base(model: nn.Module, dtypes: dict[str, torch.dtype], source: str) -> None:
    """Raises a ValueError unless the weights that a library loaded into a model are finite, and floats in their files.

    Args:
        model: with the weights loaded.
        dtypes: as `stored_dtypes` returns them.
        source: name of the file or folder, for messages.
    """
    state = model.state_dict()
    floats = {name for name, value in state.items() if kind_of(value.dtype) == "floats"}
    for name, dtype in dtypes.items():
        if kind_of(dtype) == "floats":
            continue
        # A file and a model may have different prefixes before the same name.
        words = name.split(".")
        suffixes = {".".join(words[i:]) for i in range(len(words))}
        if suffixes & floats or any(parameter.endswith(f".{name}") for parameter in floats):
            raise ValueError(f"{source}: {name} holds {kind_of(dtype)}, and the model's weight floats")
    invalid = [name for name, value in state.items() if not is_finite(value)]
    if invalid:
        raise ValueError(f"{source}: {len(invalid)} tensors hold NaN or infinite values: {', '.join(invalid[:3])}")
