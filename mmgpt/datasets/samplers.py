"""Batches that mix visual and language-only samples."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice

import numpy as np
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mmgpt.registry import DATA_SAMPLERS

from .mixture import BATCHES, LANGUAGE, VISUAL, Mixture, mix_table


@DATA_SAMPLERS.register_module()
class JointBatchSampler(Sampler):
    """Index batches of a JointDataset: `batch_size` visual samples, then `language_batch_size` language-only ones.

    One epoch is one pass over the visual data, or `weight` passes over each of its datasets (see Mixture), a last short
    batch kept. The language data is drawn endlessly, likewise in passes or by weight, in a new order each time, and
    goes on where the epoch before left it. Without visual data one epoch is one pass over the language data. The order
    is a pure function of (seed, epoch, position).

    With several processes each takes every n-th sample of it: together, batch by batch, they have what one process has
    with n times the batch sizes (unless batches are sorted). All have equally many batches, and no sample twice: in the
    last batch of an epoch some may have fewer visual samples than others, or none at all, an empty list.

    With `sorted_batches` above 1, the samples of so many neighbouring batches are sorted by the length of their text,
    visual and language ones each, cut into batches again, and these are put back in random order: rows of like length
    share a batch, so that little of it is padding.

    Each index holds its pass too: `pass * len(dataset) + index`, see InstructionDataset. The mix is logged.

    Args:
        sampler: MMEngine's DefaultSampler on a JointDataset; gives seed, epoch, shuffle, rank and world size.
        batch_size: visual samples a batch; unused without visual data.
        language_batch_size: language-only samples a batch; unused without language data.
        sorted_batches: number of batches that are sorted together, by the dataset's `text_length`; 1 for none.

    Attributes:
        start: number of batches of this epoch to pass over without reading them, for resuming.

    Raises:
        ValueError: the dataset is not a joint one, a part of it would never be drawn (by its weight or a batch size of
            0), or `sorted_batches` is below 1.
    """

    def __init__(self, sampler: Sampler, batch_size: int, language_batch_size: int = 0, sorted_batches: int = 1):
        dataset = sampler.dataset
        if not hasattr(dataset, "visual_size"):
            raise ValueError(f"JointBatchSampler needs a JointDataset, got {type(dataset).__name__}")
        if sorted_batches < 1:
            raise ValueError(f"sorted_batches={sorted_batches}: at least one batch is sorted at a time")
        self.sampler, self.start, self.sorted_batches = sampler, 0, sorted_batches
        whole = len(dataset), sampler.seed, sampler.shuffle
        self.visual = Mixture(dataset.visual, VISUAL, 0, *whole)
        self.language = Mixture(dataset.language, LANGUAGE, dataset.visual_size, *whole)
        self.batch_size = batch_size if self.visual else 0
        self.language_batch_size = language_batch_size if self.language else 0
        for size, half, name in (
            (self.batch_size, self.visual, "batch_size"),
            (self.language_batch_size, self.language, "language_batch_size"),
        ):
            if half and size < 1:
                raise ValueError(f"{name}={size}, but there are {len(half)} such samples, which would never be drawn")
        self._log_mix()

    def _log_mix(self) -> None:
        batches = len(self) * self.sampler.world_size
        language = batches * self.language_batch_size if self.visual else len(self.language)
        print_log(mix_table([(self.visual, len(self.visual)), (self.language, language)]), "current")

    def __len__(self) -> int:
        """Batches of one epoch in this process, those before `start` included."""
        half, size = (self.visual, self.batch_size) if self.visual else (self.language, self.language_batch_size)
        return _ceil(_ceil(len(half), self.sampler.world_size), size)

    def __iter__(self) -> Iterator[list[int]]:
        # A generator: torch calls iter() once too often with worker processes, which must not cost anything.
        epoch = self.sampler.epoch
        visual = self._one_epoch(self.visual, epoch)
        language = [] if self.visual else self._one_epoch(self.language, epoch)
        draw = lru_cache(maxsize=2)(self.language.epoch)

        def batch(number: int) -> tuple[list[int], list[int]]:
            drawn = _slice(language, number, self.language_batch_size)
            if self.visual and self.language_batch_size:
                drawn = self._endless(draw, (epoch * len(self) + number) * self.language_batch_size)
            return _slice(visual, number, self.batch_size), drawn

        for first in range(0, len(self), self.sorted_batches):
            numbers = range(first, min(first + self.sorted_batches, len(self)))
            if numbers[-1] < self.start:
                continue
            batches = self._sort([batch(number) for number in numbers], epoch, first)
            yield from batches[max(self.start - first, 0) :]

    def _sort(self, batches: list[tuple[list[int], list[int]]], epoch: int, first: int) -> list[list[int]]:
        """Batches (visual, language) -> as many of whole indices, by length of text (see the class)."""
        if len(batches) > 1:
            parts = [self._by_length(part) for part in zip(*batches, strict=True)]
            batches = list(zip(*parts, strict=True))
            if self.sampler.shuffle:
                order = np.random.default_rng([self.sampler.seed, BATCHES, epoch, first]).permutation(len(batches))
                batches = [batches[i] for i in order]
        return [visual + language for visual, language in batches]

    def _by_length(self, batches: tuple[list[int], ...]) -> list[list[int]]:
        """The samples of some batches, the short ones first, in batches of the same sizes as before."""
        dataset = self.sampler.dataset
        ordered = iter(sorted((i for batch in batches for i in batch), key=dataset.text_length))
        return [list(islice(ordered, len(batch))) for batch in batches]

    def _one_epoch(self, half: Mixture, number: int) -> list[int]:
        """This process's share of one epoch."""
        return half.epoch(number)[self.sampler.rank :: self.sampler.world_size].tolist()

    def _endless(self, draw: Callable[[int], np.ndarray], position: int) -> list[int]:
        """The next language samples of this process, `position` of its own samples into the endless stream."""
        sampler, indices = self.sampler, []
        for step in range(self.language_batch_size):
            number, place = divmod((position + step) * sampler.world_size + sampler.rank, len(self.language))
            indices.append(int(draw(number)[place]))
        return indices


def _ceil(count: int, size: int) -> int:
    return -(-count // size)


def _slice(indices: list[int], batch: int, size: int) -> list[int]:
    return indices[batch * size : (batch + 1) * size]
