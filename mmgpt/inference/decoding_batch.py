"""Texts that grow together by a token at a time, each from what is known of its beginning.

What is known of a text (`Known`) and of an image (`SeenImage`) is never changed: it can be kept, cut and shared.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from mmgpt.models.gated_lm import GatedCausalLM
from mmgpt.models.media import Media, media_mask
from mmgpt.models.packing import is_attention_only

from .kv_cache import roomy


class SeenImage(NamedTuple):
    """An image as the language model reads it: latents (1, N, D); keys and values (1, heads, N, d) by block number."""

    latents: Tensor
    cache: dict[int, tuple[Tensor, Tensor]]

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return self.latents.nbytes + sum(k.nbytes + v.nbytes for k, v in self.cache.values())


class Known(NamedTuple):
    """Keys and values, (1, heads, S, d) each, that each layer of a language model has of a text's first S tokens."""

    layers: tuple[tuple[Tensor, Tensor], ...] = ()

    def __len__(self) -> int:
        return self.layers[0][0].shape[2] if self.layers else 0

    def cut(self, length: int) -> "Known":
        """What is known of the first `length` tokens."""
        return Known(tuple((k[:, :, :length], v[:, :, :length]) for k, v in self.layers if length))

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(k.nbytes + v.nbytes for k, v in self.layers)

    def cache(self) -> DynamicCache:
        """For a forward call. Full keys and values for sliding windows too (their masks see to them): it can be cut."""
        return DynamicCache(self.layers)


def can_be_known(model: GatedCausalLM) -> bool:
    """Whether keys and values are all that the model keeps of a text: not so for state space and linear attention."""
    return is_attention_only(model.model)


@torch.inference_mode()
def see(model: GatedCausalLM, latents: Tensor) -> list[SeenImage]:
    """Some images, given as latents (T, N, D), as the model reads them."""
    latents = latents.to(model.dtype)
    pairs = model.image_keys_values(latents)
    parts = [slice(t, t + 1) for t in range(len(latents))]
    # Copies: each can be kept without the others.
    caches = [{i: (k[part].clone(), v[part].clone()) for i, (k, v) in pairs.items()} for part in parts]
    return [SeenImage(latents[part].clone(), cache) for part, cache in zip(parts, caches, strict=True)]


@torch.inference_mode()
def read(model: GatedCausalLM, ids: Tensor, images: Sequence[SeenImage], known: Known) -> tuple[Tensor, Known]:
    """Read the rest of a text.

    Args:
        model: in evaluation mode.
        ids: (1, L), the whole text.
        images: T, one for each of its `<image>` tokens.
        known: of its first S < L tokens.

    Returns: logits of the token that follows (1, vocabulary), and what is known of the whole text.
    """
    start, cache = len(known), known.cache()
    media, positions = _media_of(model, ids, images, start), torch.arange(start, ids.shape[1], device=ids.device)[None]
    text = ids[:, start:], torch.ones_like(ids), positions
    out = model(*text, cache=cache, media=media, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1], Known(tuple((layer.keys, layer.values) for layer in cache.layers))


def _media_of(model: GatedCausalLM, ids: Tensor, images: Sequence[SeenImage], start: int) -> Media | None:
    if not images:
        return None
    counts = torch.tensor([len(images)], device=ids.device)
    latents = images[0].latents.shape[1]
    mask = media_mask(ids == model.image_token_id, counts, len(images), latents, model.image_attention)[:, start:]
    joined = {i: tuple(torch.cat(kind, dim=2) for kind in zip(*(image.cache[i] for image in images), strict=True))
              for i in model.gated_layers}  # fmt: skip
    return Media(None, mask, None, joined)


class Growing:
    """B texts in one batch, padded on the left, that come and go at any time.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: GatedCausalLM):
        self.model = model
        self.lengths: list[int] = []
        self.images: list[SeenImage | None] = []  # the last one of each text: what its next tokens may read
        self.cache, self.media = roomy(()), None

    def add(self, known: Known, images: Sequence[SeenImage]) -> None:
        """Another text, as the last row."""
        if not self.lengths:
            self.cache = roomy(known.layers)
        else:
            room = max(len(known), self.cache.get_seq_length())
            for layer, (k, v) in zip(self.cache.layers, known.layers, strict=True):
                layer.keys = torch.cat((_padded(layer.keys, room), _padded(k, room)))
                layer.values = torch.cat((_padded(layer.values, room), _padded(v, room)))
        self.lengths.append(len(known))
        self.images.append(images[-1] if images else None)
        self.media = self._media()

    def known(self, row: int) -> Known:
        """What is known of a text so far."""
        place = slice(row, row + 1), slice(None), slice(-self.lengths[row], None)
        return Known(tuple((layer.keys[place].clone(), layer.values[place].clone()) for layer in self.cache.layers))

    def keep(self, rows: Sequence[int]) -> None:
        """Let all other texts go."""
        self.lengths = [self.lengths[row] for row in rows]
        self.images = [self.images[row] for row in rows]
        if not rows:
            self.cache = roomy(())
        for layer in self.cache.layers:
            layer.keys, layer.values = (x[list(rows), :, -max(self.lengths) :] for x in (layer.keys, layer.values))
        self.media = self._media()

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Each text with one more token: logits of what follows it (B, vocabulary)."""
        ids = torch.tensor(tokens, device=self.model.device)[:, None]
        lengths = torch.tensor(self.lengths, device=ids.device)[:, None]
        mask, longest = None, max(self.lengths) + 1
        if min(self.lengths) + 1 < longest:
            mask = (torch.arange(longest, device=ids.device) >= longest - 1 - lengths).long()
        cache = dict(cache=self.cache, use_cache=True)
        out = self.model(ids, mask, lengths, media=self.media, logits_to_keep=1, **cache)
        self.lengths = [length + 1 for length in self.lengths]
        return out.logits[:, -1]

    def _media(self) -> Media | None:
        """What the next tokens read: the last image of their text ('latest'), or nothing ('next')."""
        seen = next((image for image in self.images if image), None)
        if seen is None:
            return None
        device = self.model.device
        present = [[image is not None] for image in self.images]
        has_image = None if all(self.images) else torch.tensor(present, device=device)
        if self.model.image_attention == "next":
            return Media(None, torch.zeros(len(self.images), 1, 0, dtype=torch.bool, device=device), has_image)
        rows = [(image or seen).cache for image in self.images]
        cache = {i: tuple(torch.cat(kind) for kind in zip(*(row[i] for row in rows), strict=True)) for i in seen.cache}
        return Media(None, None, has_image, cache)


def _padded(x: Tensor, length: int) -> Tensor:
    """(B, heads, S, d) -> (B, heads, length, d), zeros before it."""
    return F.pad(x, (0, 0, length - x.shape[2], 0))
