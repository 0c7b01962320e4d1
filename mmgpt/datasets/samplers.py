"""Batch sampler that mixes visual and language-only samples."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

import numpy as np
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mmgpt.registry import DATA_SAMPLERS

from .mixture import BATCHES, LANGUAGE, VISUAL, Mixture, mixture_table, streamed_samples


@DATA_SAMPLERS.register_module()
class JointBatchSampler(Sampler):
    """Index batches of a JointDataset: `batch_size` visual samples, then `language_batch_size` language-only ones.

    1. One epoch is one pass over the visual data, or `weight` passes over each of its datasets (see Mixture); the last
       batch may be short. Without visual data it is one pass over the language data.
    2. Language samples come from an endless stream, likewise in passes or by weight, in a new order each time; an epoch
       continues where the previous one stopped.
    3. With several processes each takes every n-th sample of these sequences. Together, batch by batch, they have what
       one process has with n times the batch sizes (unless batches are sorted). All have equally many batches, and no
       sample comes twice: in the last batch of an epoch some have fewer visual samples, or an empty list.
    4. With `sorted_batches` above 1, the samples of that number of batches are sorted by the length of their text,
       visual and language samples separately, and cut into batches again, which are put in random order: a batch has
       rows of similar length and little padding.

    The order is a pure function of (seed, epoch, position). An index includes the pass, as `pass * len(dataset) +
    index` (see InstructionDataset). The mixture is logged.

    Args:
        sampler: MMEngine's DefaultSampler of a JointDataset; gives seed, epoch, shuffle, rank and world size.
        batch_size: visual samples per batch; unused without visual data.
        language_batch_size: language-only samples per batch; unused without language data.
        sorted_batches: number of batches that are sorted together, by the dataset's `text_length`; 1 for no sorting.

    Attributes:
        start: number of batches of this epoch to skip without reading them, for resuming.

    Raises:
        ValueError: the dataset is not a JointDataset, one of its datasets would never be drawn (by its weight or a
            batch size of 0) or is a stream, or `sorted_batches` is below 1.
    """

    def __init__(self, sampler: Sampler, batch_size: int, language_batch_size: int = 0, sorted_batches: int = 1):
        dataset, halves = sampler.dataset, batch_halves(type(self).__name__, sampler, batch_size, language_batch_size)
        if sorted_batches < 1:
            raise ValueError(f"sorted_batches={sorted_batches}: at least one batch is sorted at a time")
        self.sampler, self.start, self.sorted_batches = sampler, 0, sorted_batches
        (self.visual, self.batch_size), (self.language, self.language_batch_size) = halves
        streams = [member.name for member in (*dataset.visual, *dataset.language) if streamed_samples(member)]
        if streams:
            reason = "are streams, from which batch_sampler=dict(type='StreamBatchSampler') draws"
            raise ValueError(f"datasets {', '.join(streams)} {reason}")
        drawn = len(self) * sampler.world_size * self.language_batch_size if self.visual else len(self.language)
        print_log(mixture_table([(self.visual, len(self.visual)), (self.language, drawn)]), "current")

    def __len__(self) -> int:
        """Batches of one epoch in this process, including those before `start`."""
        mixture, size = (self.visual, self.batch_size) if self.visual else (self.language, self.language_batch_size)
        samples = -(-len(mixture) // self.sampler.world_size)
        return -(-samples // size)

    def __iter__(self) -> Iterator[list[int]]:
        # This is a generator because torch calls iter() once too often with worker processes, which must cost nothing.
        epoch, size, language_size = self.sampler.epoch, self.batch_size, self.language_batch_size
        visual = self._one_epoch(self.visual, epoch)
        language = [] if self.visual else self._one_epoch(self.language, epoch)
        language_epoch = lru_cache(maxsize=2)(self.language.epoch)
        for first in range(0, len(self), self.sorted_batches):
            numbers = range(first, min(first + self.sorted_batches, len(self)))
            if numbers[-1] < self.start:
                continue
            batches = []
            for number in numbers:
                language_batch = language[number * language_size : (number + 1) * language_size]
                if self.visual:
                    language_batch, start = [], (epoch * len(self) + number) * language_size
                    for position in range(start, start + language_size):
                        position = position * self.sampler.world_size + self.sampler.rank
                        language_pass, index = divmod(position, len(self.language))
                        language_batch.append(int(language_epoch(language_pass)[index]))
                batches.append((visual[number * size : (number + 1) * size], language_batch))
            if len(batches) > 1:
                # Step 4 of the class: sort visual and language samples by length, then shuffle the batches.
                sorted_halves = []
                for half in zip(*batches, strict=True):
                    indices = (index for batch in half for index in batch)
                    ordered = iter(sorted(indices, key=self.sampler.dataset.text_length))
                    sorted_halves.append([list(islice(ordered, len(batch))) for batch in half])
                batches = list(zip(*sorted_halves, strict=True))
                if self.sampler.shuffle:
                    order = np.random.default_rng([self.sampler.seed, BATCHES, epoch, first]).permutation(len(batches))
                    batches = [batches[i] for i in order]
            batches = batches[max(self.start - first, 0) :]
            yield from (visual_batch + language_batch for visual_batch, language_batch in batches)

    def _one_epoch(self, mixture: Mixture, number: int) -> list[int]:
        """Samples of this process in one epoch."""
        return mixture.epoch(number)[self.sampler.rank :: self.sampler.world_size].tolist()


def batch_halves(
    name: str, sampler: Sampler, batch_size: int, language_batch_size: int
) -> tuple[tuple[Mixture, int], tuple[Mixture, int]]:
    """The visual and the language-only samples of a JointDataset, and how many of each are in a batch, 0 without any.

    Args:
        name: of the batch sampler, for the error.

    Raises:
        ValueError: the dataset is not a JointDataset, or one of its datasets would never be drawn.
    """
    dataset = sampler.dataset
    if not hasattr(dataset, "visual_size"):
        raise ValueError(f"{name} needs a JointDataset, got {type(dataset).__name__}")
    common = len(dataset), sampler.seed, sampler.shuffle
    visual = Mixture(dataset.visual, VISUAL, 0, *common)
    language = Mixture(dataset.language, LANGUAGE, dataset.visual_size, *common)
    halves = (visual, batch_size if visual else 0), (language, language_batch_size if language else 0)
    for (mixture, size), argument in zip(halves, ("batch_size", "language_batch_size"), strict=True):
        if mixture and size < 1:
            raise ValueError(
                f"{argument}={size}, but there are {len(mixture)} such samples, which would never be drawn"
            )
    return halves
