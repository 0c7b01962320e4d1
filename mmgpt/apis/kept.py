"""What a model has computed of texts and images, kept for the next question."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmgpt.models.decoding import Known, SeenImage
from mmgpt.models.gated_lm import GatedCausalLM
from mmgpt.models.media import images_read


class Kept:
    """Keys and values of texts and images, as many as a number of bytes holds; the longest unused go first.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int):
        self.limit, self.nbytes = limit, 0
        self._texts: OrderedDict[bytes, tuple[np.ndarray, Known]] = OrderedDict()
        self._images: OrderedDict[bytes, SeenImage] = OrderedDict()

    def beginning(self, names: np.ndarray) -> Known:
        """What is known of the longest beginning of a text (see `names_of`) that was kept."""
        best, length = None, 0
        for key, (kept, known) in self._texts.items():
            same = _common(kept, names)
            if same > length:
                best, length = (key, known), same
        if best is None:
            return Known()
        self._texts.move_to_end(best[0])
        return best[1].cut(length)

    def keep_text(self, names: np.ndarray, known: Known) -> None:
        """Keep what is known of a text; what was kept of its beginnings is part of it, and goes."""
        for key in [key for key, (kept, _) in self._texts.items() if _common(kept, names) == len(kept)]:
            self._drop(self._texts, key)
        self._texts[names.tobytes()] = names, known
        self._count(known.nbytes)

    def image(self, name: bytes) -> SeenImage | None:
        """An image that was kept, by its name."""
        if name in self._images:
            self._images.move_to_end(name)
        return self._images.get(name)

    def keep_image(self, name: bytes, image: SeenImage) -> None:
        """Keep an image by its name."""
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
        self.nbytes -= gone.nbytes if isinstance(gone, SeenImage) else gone[1].nbytes


def names_of(model: GatedCausalLM, ids: Tensor, images: Sequence[bytes]) -> np.ndarray:
    """What keys and values of a text's tokens depend on, besides the tokens before: int64 (L, 2).

    That is the token and the image that it reads: beside the token stands a part of that image's name, 1 where it
    reads none of those that there are, and 0 in a text without images, which skips the gated blocks.

    Args:
        model: of the text.
        ids: (1, L).
        images: their names, of 8 bytes at least.
    """
    names = np.zeros((ids.shape[1], 2), dtype=np.int64)
    names[:, 0] = ids[0].cpu().numpy()
    if images:
        read = images_read(ids == model.image_token_id, torch.tensor([len(images)], device=ids.device), model.reading)
        known = np.array([1, *(int.from_bytes(name[:8], signed=True) for name in images)])
        names[:, 1] = known[read[0].cpu().numpy() + 1]
    return names


def name_of(pixels: Tensor, place: int = 0) -> bytes:
    """A name that only the same pixels (3, H, W) have, at the same place in a text: a digest of 32 bytes."""
    return hashlib.sha256(place.to_bytes(4) + pixels.cpu().contiguous().numpy().tobytes()).digest()


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How many rows two arrays begin with alike."""
    length = min(len(one), len(other))
    differ = np.flatnonzero((one[:length] != other[:length]).any(axis=1))
    return int(differ[0]) if len(differ) else length
