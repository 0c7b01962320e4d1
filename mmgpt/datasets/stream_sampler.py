"""Batch sampler for datasets that are read as streams."""

from collections.abc import Iterator

import numpy as np
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mmgpt.registry import DATA_SAMPLERS

from .mixture import Mixture, mixture_table, streamed_samples
from .samplers import batch_halves


@DATA_SAMPLERS.register_module()
class StreamBatchSampler(Sampler):
    """Index batches of a JointDataset some of whose datasets are streams: JointBatchSampler's, in an order for reading.

    1. An epoch has the samples that it has with JointBatchSampler: one pass over the visual data, or `weight` passes
       over each dataset, with language samples of an endless stream beside them. Its order has those of each stream
       shard after shard (see `StreamedSamples.order`), mixed at random with those of the other datasets.
    2. Each process takes a contiguous part of this order, cuts it into `streams` parts, and takes its batches from them
       in turn: batch n from part n modulo `streams`. So each worker process reads a part of the shards from beginning
       to end, if the number of workers divides `streams`.
    3. All processes have equally many batches, whatever the sizes of shards, and no sample comes twice: only in the
       last batches of an epoch some have fewer visual samples, or none.

    The order is a pure function of (seed, epoch, position). A run is resumed by the number of its batches: each worker
    opens the shard that is due, and reads without use what is before the run of samples that is due.

    Args:
        sampler: MMEngine's DefaultSampler of a JointDataset; gives seed, epoch, shuffle, rank and world size.
        batch_size: visual samples per batch; unused without visual data.
        language_batch_size: language-only samples per batch; unused without language data.
        streams: number of parts that a process reads at the same time.

    Attributes:
        start: number of batches of this epoch to skip without reading them, for resuming.

    Raises:
        ValueError: the dataset is not a JointDataset, one of its datasets would never be drawn (by its weight or a
            batch size of 0), or `streams` is below 1.
    """

    def __init__(self, sampler: Sampler, batch_size: int, language_batch_size: int = 0, streams: int = 4):
        dataset, halves = sampler.dataset, batch_halves(type(self).__name__, sampler, batch_size, language_batch_size)
        if streams < 1:
            raise ValueError(f"streams={streams}: at least one part is read at a time")
        self.sampler, self.start, self.streams = sampler, 0, streams
        (self.visual, self.batch_size), (self.language, self.language_batch_size) = halves
        for samples in filter(None, map(streamed_samples, (*dataset.visual, *dataset.language))):
            samples.split(streams)
        drawn = len(self) * sampler.world_size * self.language_batch_size if self.visual else len(self.language)
        print_log(mixture_table([(self.visual, len(self.visual)), (self.language, drawn)]), "current")

    def __len__(self) -> int:
        """Batches of one epoch in this process, including those before `start`."""
        mixture, size = (self.visual, self.batch_size) if self.visual else (self.language, self.language_batch_size)
        samples = -(-len(mixture) // self.sampler.world_size)
        return -(-samples // size)

    def __iter__(self) -> Iterator[list[int]]:
        # This is a generator because torch calls iter() once too often with worker processes, which must cost nothing.
        epoch, rank, world_size = self.sampler.epoch, self.sampler.rank, self.sampler.world_size
        drawn = len(self) * world_size * self.language_batch_size if self.visual else len(self.language)
        parts = []
        for mixture, count, size in (
            (self.visual, len(self.visual), self.batch_size),
            (self.language, drawn, self.language_batch_size),
        ):
            first, last = (epoch * count + count * process // world_size for process in (rank, rank + 1))
            parts.append((_samples(mixture, first, last), size))
        # The number of the first batch of each part, if the batches of the parts came one after the other.
        counts = [len(range(part, len(self), self.streams)) for part in range(self.streams)]
        firsts = np.cumsum([0, *counts]).tolist()
        for number in range(self.start, len(self)):
            turn, part = divmod(number, self.streams)
            place = firsts[part] + turn
            yield [int(i) for samples, size in parts for i in samples[place * size : (place + 1) * size]]


def _samples(mixture: Mixture, start: int, end: int) -> np.ndarray:
    """Samples of a mixture from a position on, to another one, in the endless sequence of its epochs."""
    size, samples = len(mixture), [np.empty(0, int)]
    for number in range(start // size, -(-end // size)) if size else ():
        low, high = max(start - number * size, 0), min(end - number * size, size)
        samples.append(mixture.reading_order(number)[low:high])
    return np.concatenate(samples)
