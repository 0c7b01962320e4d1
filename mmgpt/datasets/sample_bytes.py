"""Samples as one row of bytes, which processes can share."""

import pickle
from array import array
from collections.abc import Iterable, Sequence

import numpy as np


class SampleBytes(Sequence):
    """Samples held as bytes; each is made anew when it is asked for, a slice as a list.

    Processes that load data share such a row with the one that started them. Of a list of dicts each would soon have a
    copy: reading an object writes its reference count.

    Args:
        data: uint8 (bytes,), pickled samples one behind the other.
        ends: int64 (samples,), where in `data` each of them ends.
    """

    def __init__(self, data: np.ndarray, ends: np.ndarray):
        self.data, self.ends = data, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int | slice) -> dict | list[dict]:
        if isinstance(i, slice):
            return [self[number] for number in range(len(self))[i]]
        number = range(len(self))[i]
        return pickle.loads(self.data[self.ends[number - 1] if number else 0 : self.ends[number]])


def pack(samples: Iterable[dict]) -> SampleBytes:
    """Samples packed one by one, so that no more than one of them is held besides; packed ones as they are."""
    if isinstance(samples, SampleBytes):
        return samples
    data, ends = bytearray(), array("q")
    for sample in samples:
        data += pickle.dumps(sample)
        ends.append(len(data))
    return SampleBytes(np.frombuffer(data, np.uint8), np.frombuffer(ends, np.int64))
