"""KV caches: immutable keys and values of prefixes and images, and a preallocated cache for decoding."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

PREALLOCATED = 64  # number of further token positions that are allocated at once


class PrefixKV(NamedTuple):
    """Keys and values, (1, heads, S, d) each, of a sequence's first S tokens in each layer of a language model.

    The tensors are never changed, so that prefixes can be cached, cut and shared.
    """

    layers: tuple[tuple[Tensor, Tensor], ...] = ()

    def __len__(self) -> int:
        return self.layers[0][0].shape[2] if self.layers else 0

    def cut(self, length: int) -> "PrefixKV":
        """The first `length` tokens of the prefix."""
        return PrefixKV(tuple((k[:, :, :length], v[:, :, :length]) for k, v in self.layers if length))

    def copy(self) -> "PrefixKV":
        """A copy of the prefix in tensors of its own."""
        return PrefixKV(tuple((k.clone(), v.clone()) for k, v in self.layers))

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(k.nbytes + v.nbytes for k, v in self.layers)

    def cache(self) -> DynamicCache:
        """KV cache for a forward call; sliding windows keep all keys too (masks hide them), so that it can be cut."""
        return DynamicCache(self.layers)


class EncodedImage(NamedTuple):
    """An image's latents (1, N, D), and the gated blocks' keys and values of them (1, heads, N, d) by block index."""

    latents: Tensor
    cache: dict[int, tuple[Tensor, Tensor]]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return self.latents.nbytes + sum(k.nbytes + v.nbytes for k, v in self.cache.values())


class PreallocatedLayer(DynamicLayer):
    """A layer of transformers' KV cache that writes into preallocated tensors.

    transformers' own layer copies all keys and values at each decoding step, this one once in PREALLOCATED tokens.

    Attributes:
        common_tokens: number of leading tokens that are the same in all rows that `reorder_cache` exchanges.

    Args:
        keys, values: (B, heads, S, d) of the tokens so far; the tensors are not changed.
    """

    def __init__(self, keys: Tensor, values: Tensor):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.common_tokens = keys, values, 0
        self._allocated: tuple[Tensor, ...] = ()  # keys and values are views of the beginnings of these

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Appends keys and values (B, heads, s, d), and returns all; the other arguments are transformers'."""
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        self._allocate(end)
        for tensor, new in zip(self._allocated, (key_states, value_states), strict=True):
            tensor[:, :, start:end] = new
        self.keys, self.values = (tensor[:, :, :end] for tensor in self._allocated)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Same as in transformers. Beams are copies of one row, and beam search exchanges rows among them only."""
        super().batch_repeat_interleave(repeats)
        self.common_tokens = self.keys.shape[2]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Same as in transformers, except that the common tokens are not copied."""
        self._allocate(self.keys.shape[2])
        for tensor in (self.keys, self.values):
            tail = tensor[:, :, self.common_tokens :]
            tail.copy_(tail.index_select(0, beam_idx.to(tail.device)))

    def _allocate(self, length: int) -> None:
        """Makes keys and values views of tensors with at least `length` token positions."""
        for tensor in self._allocated[:1]:
            # transformers, or DecodingBatch, may have replaced `keys` since.
            same = self.keys.data_ptr() == tensor.data_ptr() and self.keys.stride() == tensor.stride()
            if same and len(self.keys) == len(tensor) and length <= tensor.shape[2]:
                return
        start, allocated = self.keys.shape[2], []
        for tensor in (self.keys, self.values):
            batch, heads, _, width = tensor.shape
            allocated.append(tensor.new_empty(batch, heads, length + PREALLOCATED, width))
            allocated[-1][:, :, :start] = tensor
        self._allocated = tuple(allocated)
        self.keys, self.values = (tensor[:, :, :start] for tensor in allocated)


def preallocated_cache(layers: Iterable[tuple[Tensor, Tensor]]) -> Cache:
    """A preallocated KV cache that begins with the keys and values (B, heads, S, d) of each layer."""
    return Cache(layers=[PreallocatedLayer(*pair) for pair in layers])
