"""Counters of the samples that training drops, and of truncated answers."""

import logging

import torch
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from mmgpt.utils.errors import SampleError, SampleLocation

LOGGED = 5  # The first samples of each kind are logged, then only the count at each power of ten.
KINDS = {
    "refused": "records refused by the parser",
    "failed": "samples that could not be read",
    "skipped": "samples with nothing to learn",
    "cut": "samples whose answers were truncated",
}
PROCESSES = 256


class DroppedSamples:
    """Counters of one dataset, which its worker processes share with the main process.

    Attributes:
        counts: int64 (PROCESSES, kinds) in shared memory. Each process adds to its own row, so that none has to wait
            for another: the first row is the main process's, the others are those of the workers.
    """

    def __init__(self, name: str):
        self.name = name
        self.counts = torch.zeros(PROCESSES, len(KINDS), dtype=torch.int64).share_memory_()

    @property
    def totals(self) -> dict[str, int]:
        """Counts of all processes by kind; a sample counts anew in each epoch."""
        return dict(zip(KINDS, self.counts.sum(0).tolist(), strict=True))

    def add(self, kind: str, message: str) -> None:
        """Count one of KINDS, and log the message, which names sample and reason, if it is one of the first."""
        worker = get_worker_info()
        row = 0 if worker is None else 1 + worker.id % (PROCESSES - 1)
        self.counts[row, list(KINDS).index(kind)] += 1
        count = self.totals[kind]
        if count <= LOGGED:
            print_log(f"{kind}: {message}", "current", logging.WARNING)
        elif str(count).strip("0") == "1":
            print_log(f"dataset {self.name}: {count} {KINDS[kind]} so far", "current", logging.WARNING)

    def add_answer(self, info: dict, skipped: bool) -> None:
        """Count a sample after its transforms, if its answers are empty or truncated."""
        if skipped or (info.get("cut") and info["cut"][2]):
            self.add("skipped" if skipped else "cut", f"{SampleLocation.of(info)}: {self.reason(info)}")

    def add_failure(self, info: dict, error: Exception) -> None:
        """Count a sample whose transforms raised an error."""
        if not isinstance(error, SampleError):
            # Messages of other errors say little without the type.
            name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            error = SampleError(f"{name}{error}", SampleLocation.of(info))
        self.add("failed", str(error))

    @staticmethod
    def reason(info: dict) -> str:
        """Reason why a sample has no answer, or only a part of it."""
        if "cut" not in info:
            return "nothing to learn: its answer is empty"
        length, limit, dropped_tokens = info["cut"]
        return f"{length} tokens, the limit is {limit}: {dropped_tokens} tokens of its answers are cut off"
