"""Cache of image features, computed once and read in training: a folder of few large files.

    meta.json                    transforms that made the pixels, handling of transparency, dtype of the features
    tower.safetensors            fingerprint of the image encoder (`mmgpt.models.vision.fingerprint`)
    features/<key>.safetensors   `keys` int64 (n,) and `features` (n, P, D) of n images, or of the n frames of tiled
                                 images, each image's one after the other, and their `tile_ids` int64 (n,)

Files are written atomically, so that filling a cache can be stopped and continued.
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

from mmgpt.models.vision.preprocessing import with_settings
from mmgpt.utils.atomic import atomic_write
from mmgpt.utils.data_uri import is_data_uri
from mmgpt.utils.errors import SampleError
from mmgpt.utils.json_file import read_json_object

from .shards.images import shard_of

META, FILES = "meta.json", "features"
# Background of transparent pixels (see `upright_rgb`). Caches without this entry have features of images whose alpha
# channel was dropped.
TRANSPARENCY = "white"
FILL_COMMAND = "python tools/dataset_converters/cache_features.py CONFIG"


def image_key(path: str | os.PathLike) -> int:
    """Key of an image: a 64-bit hash of its file's real path, size and modification time, or of its data URI.

    The file of an image in a shard is the shard; the image's name is hashed, too.

    Raises an OSError if the file does not exist.
    """
    if is_data_uri(os.fspath(path)):
        text = os.fsencode(path)
    else:
        file, path = shard_of(os.fspath(path)), os.fspath(path)
        status = os.stat(file)
        name = os.path.realpath(file) + path[len(file) :]
        text = b"%s\0%d\0%d" % (os.fsencode(name), status.st_size, status.st_mtime_ns)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True)


class CacheMiss(SampleError):
    """Error about an image without cached features. Training does not skip it: the cache has to be filled."""


class FeatureCache:
    """Reader of cached features by the `image_key` of their images. Features that are added later are not found.

    Args:
        folder: folder of `create_cache`.
        steps: configs of the transforms that make pixels in the pipeline.

    Raises:
        FileNotFoundError: there is no cache.
        ValueError: the cache was filled with other transforms, or one of its files is damaged.
    """

    def __init__(self, folder: str | os.PathLike | None, steps: Sequence[dict]):
        if folder is None or not (Path(folder) / META).is_file():
            raise FileNotFoundError(f"feature_cache={folder!r}: no cached features there; fill it by `{FILL_COMMAND}`")
        meta = read_json_object(Path(folder) / META)
        _check_transparency(folder, meta)
        if meta["steps"] != _as_json(steps):
            raise ValueError(
                f"the features in {folder} are of images prepared by {meta['steps']}, the pipeline prepares them by "
                f"{_as_json(steps)}: name another feature_cache"
            )
        self.files = sorted((Path(folder) / FILES).glob("*.safetensors"))
        file_keys = []
        for file in self.files:
            try:
                with safe_open(file, "np") as content:
                    file_keys.append(content.get_tensor("keys"))
            except SafetensorError as error:
                reason = f"{file} is damaged ({error})"
                raise ValueError(f"{reason}: delete it, and fill the cache again by `{FILL_COMMAND}`") from error
        self.ends = np.cumsum([len(keys) for keys in file_keys], dtype=np.int64)
        keys = np.concatenate([np.empty(0, np.int64), *file_keys])
        self.order = np.argsort(keys, kind="stable")  # the frames of an image stay in their order
        self.keys = keys[self.order]

    def __contains__(self, key: int) -> bool:
        return self._index(key) is not None

    def read(self, key: int) -> Tensor:
        """Features (P, D) of the image with a key, of a tiled one those of the whole image.

        Raises:
            KeyError: the image is not in the cache.
        """
        return self.read_frames(key)[0][0]

    def read_frames(self, key: int) -> tuple[Tensor, Tensor | None]:
        """Features (F, P, D) of the frames of the image with a key, and their `tile_ids` (F,), None without tiles.

        Raises:
            KeyError: the image is not in the cache.
        """
        index = self._index(key)
        if index is None:
            raise KeyError(key)
        file = np.searchsorted(self.ends, index, side="right")
        start = int(index - (self.ends[file - 1] if file else 0))
        with safe_open(self.files[file], "pt") as content:
            if "tile_ids" not in content.keys():  # noqa: SIM118
                return content.get_slice("features")[start : start + 1], None
            first, last = np.searchsorted(self.keys, key), np.searchsorted(self.keys, key, side="right")
            end = start + int((self.order[first:last] < self.ends[file]).sum())
            return content.get_slice("features")[start:end], content.get_slice("tile_ids")[start:end]

    def _index(self, key: int) -> int | None:
        """Index of an image among those of all files."""
        i = np.searchsorted(self.keys, key)
        return int(self.order[i]) if i < len(self.keys) and self.keys[i] == key else None


def create_cache(folder: str | os.PathLike, steps: Sequence[dict], dtype: str) -> None:
    """Creates an empty cache, if there is none yet.

    Raises:
        ValueError: there is a cache of other transforms or of another dtype.
    """
    meta, path = {"steps": _as_json(steps), "dtype": dtype, "transparency": TRANSPARENCY}, Path(folder) / META
    if path.is_file():
        existing = read_json_object(path)
        _check_transparency(folder, existing)
        if existing != meta:
            reason = f"{folder} was filled for {existing}, not {meta}"
            raise ValueError(f"{reason}: name another feature_cache, or delete it")
        return
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(meta, indent=2) + "\n")


def add_features(folder: str | os.PathLike, keys: Tensor, features: Tensor, tile_ids: Tensor | None = None) -> None:
    """Adds a file with the features (n, P, D) and keys int64 (n,) of n images, or of n frames, to a cache."""
    name = hashlib.blake2b(keys.numpy().tobytes(), digest_size=8).hexdigest()
    file = Path(folder) / FILES / f"{name}.safetensors"
    with atomic_write(file) as temporary:
        # save_file is not used because only the owner can read its files.
        tensors = {"keys": keys, "features": features.contiguous()}
        temporary.write_bytes(save(tensors if tile_ids is None else {**tensors, "tile_ids": tile_ids}))


def _check_transparency(folder: str | os.PathLike, meta: dict) -> None:
    if meta.get("transparency") != TRANSPARENCY:
        raise ValueError(
            f"the features in {folder} are of images that were read without their transparency, which is laid on white "
            f"now: delete the folder and fill it again by `{FILL_COMMAND}`, or name another feature_cache"
        )


def _as_json(steps: Sequence[dict]) -> list:
    """Configs, with the settings of an image encoder's preprocessing, as JSON has them: with lists for tuples."""
    return json.loads(json.dumps(with_settings(steps)))
