"""The batch of sequences that are decoded together, one token at each step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmgpt.models.gated_lm import GatedCausalLM
from mmgpt.models.media import Media

from .kv_cache import EncodedImage, PrefixKV, RecurrentPrefix, append_rows, preallocated_cache, select_rows


class DecodingBatch:
    """B sequences in one KV cache, padded on the left; sequences join and leave between any two steps.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: GatedCausalLM):
        self.model = model
        self.lengths: list[int] = []
        # The last image of each sequence: generated tokens attend to no other one.
        self.images: list[EncodedImage | None] = []
        self.cache, self.media = preallocated_cache(()), None

    def add(
        self, prefixes: Sequence[PrefixKV] | Sequence[RecurrentPrefix], images: Sequence[Sequence[EncodedImage]]
    ) -> None:
        """Appends sequences as the last rows, each with its images; the same one several times for its beams."""
        self.images += [row[-1] if row else None for row in images]
        caches = [prefix.decoding_cache() for prefix in prefixes]
        if not self.lengths:
            # The first sequence needs no copy: a preallocated cache does not change the tensors that it begins with.
            self.cache = caches.pop(0)
        self.lengths += map(len, prefixes)
        for layer, *others in zip(*(cache.layers for cache in (self.cache, *caches)), strict=True) if caches else ():
            append_rows(layer, others, max(self.lengths))
        self.media = self._media()

    def prefix(self, row: int) -> PrefixKV:
        """A copy of a sequence's keys and values."""
        index = slice(row, row + 1), slice(None), slice(-self.lengths[row], None)
        return PrefixKV(tuple((layer.keys[index], layer.values[index]) for layer in self.cache.layers)).copy()

    def select(self, rows: Sequence[int]) -> None:
        """Keeps these rows, in this order; a row can be repeated."""
        self.lengths = [self.lengths[row] for row in rows]
        self.images = [self.images[row] for row in rows]
        if not rows:
            self.cache = preallocated_cache(())
        for layer in self.cache.layers:
            select_rows(layer, rows, max(self.lengths))
        self.media = self._media()

    def reorder(self, rows: Sequence[int], tokens: int) -> None:
        """Puts these rows in place of all rows; one that replaces another differs from it in its last `tokens` only."""
        index = torch.tensor(rows, device=self.model.device)
        for layer in self.cache.layers:
            layer.common_tokens = max(self.lengths) - tokens
            layer.reorder_cache(index)

    @torch.no_grad()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Logits (B, vocabulary) of the tokens that follow, after appending one token to each sequence."""
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
        """The `Media` of generated tokens: the last image of their sequence ('latest'), or none ('next')."""
        stand_in = next((image for image in self.images if image), None)
        if stand_in is None:
            return None
        device = self.model.device
        present = [[image is not None] for image in self.images]
        has_image = None if all(self.images) else torch.tensor(present, device=device)
        if self.model.image_attention == "next":
            return Media(None, torch.zeros(len(self.images), 1, 0, dtype=torch.bool, device=device), has_image)
        rows = [(image or stand_in).cache for image in self.images]
        cache = {i: tuple(torch.cat(kind) for kind in zip(*(row[i] for row in rows), strict=True)) for i in rows[0]}
        return Media(None, None, has_image, cache)
