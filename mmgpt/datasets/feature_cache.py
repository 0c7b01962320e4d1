"""Features of image files, computed once and read while training: a folder of few large files.

    meta.json                    the steps that made the pixels, how they read images, and the features' dtype
    tower.safetensors            what tells the image encoder (`mmgpt.models.vision.fingerprint`)
    features/<key>.safetensors   `keys` int64 (n,) and `features` (n, P, D) of n images

Files appear when they are complete, so that a fill that was stopped leaves whole ones, and goes on.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mmgpt.utils.atomic import atomic_write
from mmgpt.utils.errors import SampleError
from mmgpt.utils.json_file import read_json_object

META, FILES = "meta.json", "features"
# What is done with the transparent pixels of an image (see `upright_rgb`). Caches that were filled before it was
# written down have the features of images without their alpha channel.
TRANSPARENCY = "white"
FILL = "python tools/dataset_converters/cache_features.py CONFIG"


def image_key(path: str | os.PathLike) -> int:
    """What an image file is found by: another number when it is another file, or the file has changed since.

    64 bits of a hash of its real path, size and time of change. Raises an OSError when there is no such file.
    """
    facts = os.stat(path)
    text = b"%s\0%d\0%d" % (os.fsencode(os.path.realpath(path)), facts.st_size, facts.st_mtime_ns)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True)


class CacheMiss(SampleError):
    """Error about an image without cached features. Training does not skip it: the cache has to be filled."""


class FeatureCache:
    """Reads features by the `image_key` of their images. What is written later is not seen.

    Args:
        folder: that `create_cache` made.
        steps: configs of the transforms that make pixels in the pipeline that reads.

    Raises:
        FileNotFoundError: there is no cache.
        ValueError: its features are of pixels made by other steps, or one of its files is damaged.
    """

    def __init__(self, folder: str | os.PathLike | None, steps: Sequence[dict]):
        if folder is None or not (Path(folder) / META).is_file():
            raise FileNotFoundError(f"feature_cache={folder!r}: no cached features there; fill it by `{FILL}`")
        meta = read_json_object(Path(folder) / META)
        _check_transparency(folder, meta)
        made = meta["steps"]
        if made != _plain(steps):
            raise ValueError(
                f"the features in {folder} are of images prepared by {made}, the pipeline prepares them by "
                f"{_plain(steps)}: name another feature_cache"
            )
        self.files = sorted((Path(folder) / FILES).glob("*.safetensors"))
        parts = [_keys(file) for file in self.files]
        self.ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        keys = np.concatenate([np.empty(0, np.int64), *parts])
        self.order = np.argsort(keys)
        self.keys = keys[self.order]

    def __contains__(self, key: int) -> bool:
        return self._place(key) is not None

    def read(self, key: int) -> Tensor:
        """Features (P, D) of the image with that key.

        Raises:
            KeyError: they are not in the cache.
        """
        place = self._place(key)
        if place is None:
            raise KeyError(key)
        file = np.searchsorted(self.ends, place, side="right")
        row = place - (self.ends[file - 1] if file else 0)
        with safe_open(self.files[file], "pt") as content:
            return content.get_slice("features")[int(row)]

    def _place(self, key: int) -> int | None:
        """Number of an image among those of all files."""
        i = np.searchsorted(self.keys, key)
        return int(self.order[i]) if i < len(self.keys) and self.keys[i] == key else None


def create_cache(folder: str | os.PathLike, steps: Sequence[dict], dtype: str) -> None:
    """Makes an empty cache; leaves one that is there already.

    Raises:
        ValueError: the one that is there is of other steps or of another dtype.
    """
    meta, path = {"steps": _plain(steps), "dtype": dtype, "transparency": TRANSPARENCY}, Path(folder) / META
    if path.is_file():
        made = read_json_object(path)
        _check_transparency(folder, made)
        if made != meta:
            raise ValueError(f"{folder} was filled for {made}, not {meta}: name another feature_cache, or delete it")
        return
    with atomic_write(path) as part:
        part.write_text(json.dumps(meta, indent=2) + "\n")


def add_features(folder: str | os.PathLike, keys: Tensor, features: Tensor) -> None:
    """Writes the features (n, P, D) of the images with these keys int64 (n,) as one further file of a cache."""
    name = hashlib.blake2b(keys.numpy().tobytes(), digest_size=8).hexdigest()
    file = Path(folder) / FILES / f"{name}.safetensors"
    with atomic_write(file) as part:
        # Not save_file, whose files nobody but their owner can read.
        part.write_bytes(save({"keys": keys, "features": features.contiguous()}))


def _check_transparency(folder: str | os.PathLike, meta: dict) -> None:
    if meta.get("transparency") != TRANSPARENCY:
        raise ValueError(
            f"the features in {folder} are of images that were read without their transparency, which is laid on white "
            f"now: delete the folder and fill it again by `{FILL}`, or name another feature_cache"
        )


def _keys(file: Path) -> np.ndarray:
    try:
        with safe_open(file, "np") as content:
            return content.get_tensor("keys")
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}): delete it, and fill the cache again by `{FILL}`") from error


def _plain(steps: Sequence[dict]) -> list:
    """Configs as JSON gives them back."""
    return json.loads(json.dumps(steps))
