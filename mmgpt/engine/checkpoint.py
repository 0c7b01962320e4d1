"""Checkpoint files: loaded without running code, written atomically, holding nothing but tensors and plain data."""

import os

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from mmgpt.models.weights.reader import read_weights
from mmgpt.utils.atomic import atomic_write


def load_from_local(filename: str, map_location: str | None = None) -> dict:
    """Safe replacement of MMEngine's loader of local files.

    The file is not mapped into memory, since a later checkpoint may replace it. The text of a config that old versions
    of MMCV kept in `meta` is dropped: a config is read from its own file only.

    Raises:
        FileNotFoundError, ValueError: see `read_weights`; an address, such as https://..., is not a file.
    """
    content = read_weights(filename, map_location or "cpu", mmap=False)
    if isinstance(content.get("meta"), dict):
        content["meta"].pop("config", None)
    return content


# Our loader replaces MMEngine's for paths and for addresses of every scheme. The loaders of onedl-mmengine load
# unsafely what they cannot load safely, and with both engines an environment variable
# (TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD) decides whether addresses are loaded safely.
CheckpointLoader.register_scheme(["", *CheckpointLoader._schemes], load_from_local, force=True)


def to_plain_data(value: object) -> object:
    """``value`` as tensors, dicts, lists and plain values only, which torch.load(weights_only=True) accepts.

    A HistoryBuffer of MMEngine's message hub becomes ``{'history': [log values, counts], 'max_length': n}``.

    Raises:
        ValueError: the value is, or holds, something else.
    """
    if isinstance(value, HistoryBuffer):
        return dict(history=[torch.from_numpy(array.copy()) for array in value.data], max_length=value.max_length)
    if isinstance(value, dict):
        return {key: to_plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [to_plain_data(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (Tensor, str, int, float)):
        return value
    raise ValueError(f"a checkpoint cannot hold a {type(value).__name__}: {value!r}")


@register_backend("atomic")
class AtomicBackend(LocalBackend):
    """MMEngine's local file storage, except that a file appears under its name only when it is complete."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write ``obj`` beside ``filepath``, then rename it."""
        with atomic_write(filepath) as temporary:
            super().put(obj, temporary)
