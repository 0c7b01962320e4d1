"""The batch of sequences that are decoded together, one token at each step."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmgpt.models.gated_lm import GatedCausalLM
from mmgpt.models.media import Media

from .kv_cache import EncodedImage, PrefixKV, preallocated_cache


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

    def add(self, prefixes: Sequence[PrefixKV], images: Sequence[Sequence[EncodedImage]]) -> None:
        """Appends sequences as the last rows, each with its images."""
        length = max(map(len, prefixes))
        if self.lengths:
            length = max(length, self.cache.get_seq_length())
        # Layer by layer, so that only one of them exists twice at a time.
        layers = self.cache.layers if self.lengths else [None] * len(prefixes[0].layers)
        for number, layer in enumerate(layers):
            kept = [] if layer is None else [(layer.keys, layer.values)]
            pairs = [*kept, *(prefix.layers[number] for prefix in prefixes)]
            joined = [torch.cat([_padded(x, length) for x in kind]) for kind in zip(*pairs, strict=True)]
            if layer is None:
                layers[number] = joined
            else:
                layer.keys, layer.values = joined
        if not self.lengths:
            self.cache = preallocated_cache(layers)
        self.lengths += map(len, prefixes)
        self.images += [row[-1] if row else None for row in images]
        self.media = self._media()

    def prefix(self, row: int) -> PrefixKV:
        """A copy of a sequence's keys and values."""
        index = slice(row, row + 1), slice(None), slice(-self.lengths[row], None)
        return PrefixKV(tuple((layer.keys[index], layer.values[index]) for layer in self.cache.layers)).copy()

    def select(self, rows: Sequence[int]) -> None:
        """Drops all other rows."""
        self.lengths = [self.lengths[row] for row in rows]
        self.images = [self.images[row] for row in rows]
        if not rows:
            self.cache = preallocated_cache(())
        for layer in self.cache.layers:
            layer.keys, layer.values = (x[list(rows), :, -max(self.lengths) :] for x in (layer.keys, layer.values))
        self.media = self._media()

    @torch.no_grad()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Appends one token to each sequence -> logits of the next one (B, vocabulary)."""
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
        """What generated tokens attend to: the last image of their sequence ('latest'), or nothing ('next')."""
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


def _padded(x: Tensor, length: int) -> Tensor:
    """(B, heads, S, d) -> (B, heads, length, d), with zeros before the S tokens."""
    return F.pad(x, (0, 0, length - x.shape[2], 0))
