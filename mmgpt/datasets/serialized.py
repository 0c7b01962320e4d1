"""Sequence of samples in one array of bytes, which worker processes share with the main process."""

import json
import os
import pickle
from array import array
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import numpy as np


class SerializedSamples(Sequence):
    """Sequence of pickled samples, or JSON texts; an item is decoded anew at each access, and a slice is a list.

    Forked worker processes share the memory of the array. They would soon copy a list of dicts: each access to an
    object writes its reference count.

    Args:
        data: uint8 (bytes,), the samples one after the other.
        ends: int64 (samples,), the end of each sample in `data`.
        as_json: whether they are JSON. Files that others may have written must be: unpickling runs what they say.
    """

    def __init__(self, data: np.ndarray, ends: np.ndarray, as_json: bool = False):
        self.data, self.ends, self.as_json = data, ends, as_json

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int | slice) -> dict | list[dict]:
        if isinstance(i, slice):
            return [self[index] for index in range(len(self))[i]]
        index = range(len(self))[i]
        content = self.data[self.ends[index - 1] if index else 0 : self.ends[index]]
        return json.loads(content.tobytes()) if self.as_json else pickle.loads(content)

    def write(self, file: BinaryIO) -> None:
        """Append to a file: the number of samples, their ends (all int64) and their bytes."""
        for values in (np.array([len(self)], np.int64), self.ends, self.data):
            file.write(values.data)

    @classmethod
    def map(cls, path: str | os.PathLike, start: int = 0, as_json: bool = False) -> "SerializedSamples":
        """Samples that `write` has written to a file from a byte on, a multiple of eight; mapped into memory.

        Raises:
            ValueError, LookupError: the file has no samples there, or ends before they do.
        """
        content = np.asarray(np.memmap(path, np.uint8, mode="r", offset=start))
        count = int(content[:8].view(np.int64)[0])
        data, ends = content[8 * (1 + count) :], content[8 : 8 * (1 + count)].view(np.int64)
        if len(ends) != count or len(data) != (ends[-1] if count else 0):
            raise ValueError(f"{path} does not hold all of {count} samples")
        return cls(data, ends, as_json)


def serialize(samples: Iterable[dict], as_json: bool = False) -> SerializedSamples:
    """Samples pickled (or written as JSON) one by one, so that a generator of samples is never held as a list."""
    if isinstance(samples, SerializedSamples):
        return samples
    data, ends = bytearray(), array("q")
    for sample in samples:
        data += json.dumps(sample).encode() if as_json else pickle.dumps(sample)
        ends.append(len(data))
    return SerializedSamples(np.frombuffer(data, np.uint8), np.frombuffer(ends, np.int64), as_json)
