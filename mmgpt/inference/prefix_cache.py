"""LRU cache of KV prefixes and encoded images, shared between requests."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmgpt.models.gated_lm import GatedCausalLM
from mmgpt.models.media import attended_images

from .kv_cache import EncodedImage, PrefixKV


class CachedPrefix(NamedTuple):
    """An entry of the cache: token keys (see `token_keys`), KV, and a hash of each of its own prefixes."""

    keys: np.ndarray
    prefix: PrefixKV
    hashes: list[int]

    @property
    def nbytes(self) -> int:
        """Bytes of the KV."""
        return self.prefix.nbytes


class PrefixCache:
    """KV prefixes and encoded images up to a number of bytes; the least recently used ones are evicted.

    Args:
        limit: bytes; with 0 nothing is cached.
    """

    def __init__(self, limit: int):
        self.limit, self.nbytes = limit, 0
        self._prefixes: OrderedDict[bytes, CachedPrefix] = OrderedDict()
        self._by_hash: dict[int, bytes] = {}  # hash of a prefix -> the latest entry that begins with it
        self._images: OrderedDict[bytes, EncodedImage] = OrderedDict()

    def longest(self, keys: np.ndarray) -> PrefixKV:
        """The longest cached prefix of a sequence with these token keys."""
        for number in reversed(_hashes(keys)):
            name = self._by_hash.get(number)
            length = 0 if name is None else common_length(self._prefixes[name].keys, keys)
            if length:
                self._prefixes.move_to_end(name)
                return self._prefixes[name].prefix.cut(length)
        return PrefixKV()

    def add(self, keys: np.ndarray, prefix: PrefixKV) -> None:
        """Caches a prefix; entries that are prefixes of this one are redundant, and dropped."""
        name, hashes = keys.tobytes(), _hashes(keys)
        for other in {self._by_hash[number] for number in hashes if number in self._by_hash}:
            if common_length(self._prefixes[other].keys, keys) == len(self._prefixes[other].keys):
                self._drop(self._prefixes, other)
        self._prefixes[name] = CachedPrefix(keys, prefix, hashes)
        self._by_hash.update(dict.fromkeys(hashes, name))
        self._count(prefix.nbytes)

    def image(self, digest: bytes) -> EncodedImage | None:
        """The encoded image with this digest, None if it is not cached."""
        if digest in self._images:
            self._images.move_to_end(digest)
        return self._images.get(digest)

    def add_image(self, digest: bytes, image: EncodedImage) -> None:
        """Caches an encoded image."""
        if digest in self._images:
            self._drop(self._images, digest)
        self._images[digest] = image
        self._count(image.nbytes)

    def _count(self, nbytes: int) -> None:
        self.nbytes += nbytes
        while self.nbytes > self.limit:
            # Images are evicted last: they are small, and a prefix is of no use without its images.
            entries = self._prefixes or self._images
            self._drop(entries, next(iter(entries)))

    def _drop(self, entries: OrderedDict, name: bytes) -> None:
        entry = entries.pop(name)
        self.nbytes -= entry.nbytes
        for number in entry.hashes if isinstance(entry, CachedPrefix) else ():
            if self._by_hash.get(number) == name:
                del self._by_hash[number]


def token_keys(model: GatedCausalLM, ids: Tensor, digests: Sequence[bytes], scope: str = "") -> np.ndarray:
    """Keys of tokens in the prefix cache: all that a token's KV depends on, except the tokens before it. int64 (L, 3).

    The columns are the token's id; 8 bytes of the digest of the image that it attends to, or 1 where it attends to none
    of the images, or 0 in a sequence without images, which skips the gated blocks; and 8 bytes of a digest of the
    scope, so that sequences of different scopes share no prefix.

    Args:
        model: the language model.
        ids: (1, L).
        digests: the digest of each image, at least 8 bytes long.
        scope: any text.
    """
    keys = np.zeros((ids.shape[1], 3), dtype=np.int64)
    keys[:, 2] = int.from_bytes(hashlib.sha256(scope.encode()).digest()[:8], signed=True)
    keys[:, 0] = ids[0].cpu().numpy()
    if digests:
        counts = torch.tensor([len(digests)], device=ids.device)
        index = attended_images(ids == model.image_token_id, counts, model.image_attention)[0].cpu().numpy()
        keys[:, 1] = np.array([1, *(int.from_bytes(digest[:8], signed=True) for digest in digests)])[index + 1]
    return keys


def image_digest(
    pixels: Tensor, position: int = 0, tile_ids: Tensor | None = None, adapter: str | None = None
) -> bytes:
    """Digest of 32 bytes of an image.

    Args:
        pixels: (3, H, W), or (F, 3, H, W) with the image's `tile_ids` (F,).
        position: of the image in its sequence.
        adapter: name of the model's LoRA adapter.
    """
    tensors = [pixels] if tile_ids is None else [tile_ids, pixels]
    content = b"".join(tensor.cpu().contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(repr((position, adapter)).encode() + content).digest()


def _hashes(keys: np.ndarray) -> list[int]:
    """A hash of each prefix of a sequence of keys, the shortest first."""
    hashes, last = [], 0
    for row in keys.tolist():
        last = hash((last, *row))
        hashes.append(last)
    return hashes


def common_length(keys: np.ndarray, others: np.ndarray) -> int:
    """Length of the longest common prefix of two arrays of keys."""
    length = min(len(keys), len(others))
    differences = np.flatnonzero((keys[:length] != others[:length]).any(axis=1))
    return int(differences[0]) if len(differences) else length
