"""Keys and values of texts with room for tokens to come: a step writes its own, and copies nobody else's."""

from collections.abc import Iterable

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64  # tokens


class RoomyLayer(DynamicLayer):
    """A layer of transformers' cache that is copied once in ROOM tokens, where transformers' own is at each.

    Attributes:
        alike: so many tokens at the beginning are the same in all rows that `reorder_cache` exchanges.

    Args:
        keys, values: (B, heads, S, d) of the tokens so far; they are not changed.
    """

    def __init__(self, keys: Tensor, values: Tensor):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.alike = keys, values, 0
        self._rooms: tuple[Tensor, ...] = ()  # what keys and values are the beginnings of

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Takes the next tokens' (B, heads, s, d), and gives those of all; the other arguments are transformers'."""
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        self._make_room(end)
        for room, new in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """As in transformers. The rows of a beam search are copies of one; those are all that it exchanges."""
        super().batch_repeat_interleave(repeats)
        self.alike = self.keys.shape[2]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """As in transformers, but for what is alike."""
        self._make_room(self.keys.shape[2])
        for known in (self.keys, self.values):
            own = known[:, :, self.alike :]
            own.copy_(own.index_select(0, beam_idx.to(own.device)))

    def _make_room(self, length: int) -> None:
        """Sees to it that keys and values are the beginnings of rooms for so many tokens."""
        for room in self._rooms[:1]:
            # Others may have put something else in their place.
            same = self.keys.data_ptr() == room.data_ptr() and self.keys.stride() == room.stride()
            same = same and len(self.keys) == len(room)
            if same and length <= room.shape[2]:
                return
        start = self.keys.shape[2]
        self._rooms = tuple(_copied(known, length + ROOM) for known in (self.keys, self.values))
        self.keys, self.values = (room[:, :, :start] for room in self._rooms)


def roomy(layers: Iterable[tuple[Tensor, Tensor]]) -> Cache:
    """A cache for forward calls that goes on from some keys and values of each layer."""
    return Cache(layers=[RoomyLayer(*pair) for pair in layers])


def _copied(known: Tensor, length: int) -> Tensor:
    """(B, heads, S, d) -> (B, heads, length, d), of which the first S are known."""
    batch, heads, start, width = known.shape
    room = known.new_empty(batch, heads, length, width)
    room[:, :, :start] = known
    return room
