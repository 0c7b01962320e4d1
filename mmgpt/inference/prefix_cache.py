"""What a model has computed of texts and images, kept for the next question."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmgpt.inference.decoding_batch import Known, SeenImage
from mmgpt.models.gated_lm import GatedCausalLM
from mmgpt.models.media import attended_images


class Text(NamedTuple):
    """A text that was kept: its names (see `names_of`), what is known of it, and a hash of each of its beginnings."""

    names: np.ndarray
    known: Known
    hashes: list[int]

    @property
    def nbytes(self) -> int:
        """Bytes of its keys and values."""
        return self.known.nbytes


class Kept:
    """Keys and values of texts and images, as many as a number of bytes holds; the longest unused go first.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int):
        self.limit, self.nbytes = limit, 0
        self._texts: OrderedDict[bytes, Text] = OrderedDict()
        self._beginnings: dict[int, bytes] = {}  # hash of a beginning -> the latest text that has it
        self._images: OrderedDict[bytes, SeenImage] = OrderedDict()

    def beginning(self, names: np.ndarray) -> Known:
        """What is known of the longest beginning of a text (see `names_of`) that was kept."""
        for number in reversed(_hashes(names)):
            key = self._beginnings.get(number)
            length = 0 if key is None else _common(self._texts[key].names, names)
            if length:
                self._texts.move_to_end(key)
                return self._texts[key].known.cut(length)
        return Known()

    def keep_text(self, names: np.ndarray, known: Known) -> None:
        """Keep what is known of a text; what was kept of its beginnings is part of it, and goes."""
        key, hashes = names.tobytes(), _hashes(names)
        for like in {self._beginnings[number] for number in hashes if number in self._beginnings}:
            if _common(self._texts[like].names, names) == len(self._texts[like].names):
                self._drop(self._texts, like)
        self._texts[key] = Text(names, known, hashes)
        self._beginnings.update(dict.fromkeys(hashes, key))
        self._count(known.nbytes)

    def image(self, name: bytes) -> SeenImage | None:
        """An image that was kept, by its name."""
        if name in self._images:
            self._images.move_to_end(name)
        return self._images.get(name)

    def keep_image(self, name: bytes, image: SeenImage) -> None:
        """Keep an image by its name."""
        if name in self._images:
            self._drop(self._images, name)
        self._images[name] = image
        self._count(image.nbytes)

    def _count(self, nbytes: int) -> None:
        self.nbytes += nbytes
        while self.nbytes > self.limit:
            # Images are small, and a text is of no use without its own: they go last.
            entries = self._texts or self._images
            self._drop(entries, next(iter(entries)))

    def _drop(self, entries: OrderedDict, key: bytes) -> None:
        gone = entries.pop(key)
        self.nbytes -= gone.nbytes
        for number in gone.hashes if isinstance(gone, Text) else ():
            if self._beginnings.get(number) == key:
                del self._beginnings[number]


def names_of(model: GatedCausalLM, ids: Tensor, images: Sequence[bytes], scope: str = "") -> np.ndarray:
    """What keys and values of a text's tokens depend on, besides the tokens before: int64 (L, 3).

    That is the token and the image that it reads: beside the token stands a part of that image's name, 1 where it
    reads none of those that there are, and 0 in a text without images, which skips the gated blocks. The last is a part
    of a digest of the scope: texts of different scopes have nothing in common.

    Args:
        model: of the text.
        ids: (1, L).
        images: their names, of 8 bytes at least.
        scope: any text.
    """
    names = np.zeros((ids.shape[1], 3), dtype=np.int64)
    names[:, 2] = int.from_bytes(hashlib.sha256(scope.encode()).digest()[:8], signed=True)
    names[:, 0] = ids[0].cpu().numpy()
    if images:
        read = attended_images(
            ids == model.image_token_id, torch.tensor([len(images)], device=ids.device), model.image_attention
        )
        known = np.array([1, *(int.from_bytes(name[:8], signed=True) for name in images)])
        names[:, 1] = known[read[0].cpu().numpy() + 1]
    return names


def name_of(pixels: Tensor, place: int = 0) -> bytes:
    """A name that only the same pixels (3, H, W) have, at the same place in a text: a digest of 32 bytes."""
    return hashlib.sha256(place.to_bytes(4) + pixels.cpu().contiguous().numpy().tobytes()).digest()


def _hashes(names: np.ndarray) -> list[int]:
    """A hash of each beginning of a text, the shortest first."""
    hashes, last = [], 0
    for row in names.tolist():
        last = hash((last, *row))
        hashes.append(last)
    return hashes


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How many rows two arrays begin with alike."""
    length = min(len(one), len(other))
    differ = np.flatnonzero((one[:length] != other[:length]).any(axis=1))
    return int(differ[0]) if len(differ) else length
