"""KV caches: immutable keys and values of prefixes and images, and caches of the sequences that are decoded."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

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

    def decoding_cache(self) -> Cache:
        """KV cache for the decoding steps that follow."""
        return preallocated_cache(self.layers)


class RecurrentPrefix(NamedTuple):
    """A sequence's first tokens in a model with a recurrent state: transformers' cache of them, and their number.

    It is neither cut nor shared: decoding changes it.
    """

    state: DynamicCache
    length: int = 0

    def __len__(self) -> int:
        return self.length

    def decoding_cache(self) -> Cache:
        """The cache itself."""
        return self.state


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
        common_tokens: number of leading positions that are the same in all rows that `reorder_cache` exchanges.

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

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Same as in transformers, except that the common positions are not copied."""
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


def recurrent_cache(config: PreTrainedConfig) -> DynamicCache:
    """transformers' cache for a model with a recurrent state; sliding windows keep all keys (see `PrefixKV.cache`)."""
    cache = DynamicCache(config=config)
    cache.layers = [DynamicLayer() if type(layer) is DynamicSlidingWindowLayer else layer for layer in cache.layers]
    return cache


def append_rows(layer: CacheLayerMixin, others: Sequence[CacheLayerMixin], length: int) -> None:
    """Appends the rows of other caches' layers to a layer, keys and values padded on the left to a length."""
    if getattr(layer, "keys", None) is not None:
        pairs = [(each.keys, each.values) for each in (layer, *others)]
        layer.keys, layer.values = (
            torch.cat([F.pad(x, (0, 0, length - x.shape[2], 0)) for x in tensors])
            for tensors in zip(*pairs, strict=True)
        )
    for states, *rest in zip(*map(_recurrent_states, (layer, *others)), strict=True):
        for i, state in states.items():
            if state is not None:
                states[i] = torch.cat([state, *(row[i] for row in rest)])


def select_rows(layer: CacheLayerMixin, rows: Sequence[int], length: int) -> None:
    """Keeps these rows of a layer, and the last `length` positions of their keys and values."""
    rows = list(rows)
    if getattr(layer, "keys", None) is not None:
        layer.keys, layer.values = (x[rows, :, -length:] for x in (layer.keys, layer.values))
    for states in _recurrent_states(layer):
        states.update({i: state[rows] for i, state in states.items() if state is not None})


def _recurrent_states(layer: CacheLayerMixin) -> list[dict[int, Tensor | None]]:
    """The states of a recurrent layer, those of its convolutions and its own; none of other layers."""
    return [getattr(layer, name, {}) for name in ("conv_states", "recurrent_states")]
