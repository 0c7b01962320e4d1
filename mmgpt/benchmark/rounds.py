"""Measuring things in turns, so that what else runs on the machine slows all of them alike."""

import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median

import torch
from torch import Tensor

from mmgpt.engine.progress import progress_bar
from mmgpt.models.memory import LiveBytes

Case = Callable[[], float]
Times = Mapping[str, list[float]]


class Timer:
    """Seconds of calls, with what a GPU still computes waited for.

    Args:
        device: where they compute.
        own: whether a single thread's work is measured by the time that the processor gives to this process, which
            other programs do not slow, instead of by the clock on the wall. What only waits counts nothing then.
    """

    def __init__(self, device: torch.device, own: bool = False):
        self.device = device
        alone = own and device.type == "cpu" and torch.get_num_threads() == 1
        self.clock = time.process_time if alone else time.perf_counter

    def __call__(self, work: Callable[[], object]) -> float:
        """Seconds that `work` takes."""
        self._wait()
        start = self.clock()
        work()
        self._wait()
        return self.clock() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def in_turns(cases: Mapping[str, Case], rounds: int, name: str = "rounds") -> dict[str, list[float]]:
    """What each case gives, round by round: A B C, then C B A, and so on; a first round, which warms up, is forgotten.

    Args:
        cases: each measures itself once and gives its seconds, so that it can leave out what prepares it.
        rounds: how many are kept.
        name: of the progress bar.
    """
    times: dict[str, list[float]] = {case: [] for case in cases}
    order = list(cases)
    with progress_bar(name, (rounds + 1) * len(order)) as bar:
        for number in range(rounds + 1):
            for case in order:
                seconds = cases[case]()
                if number:
                    times[case].append(seconds)
                bar.update()
            order.reverse()
    return times


def ratio(times: Times, ours: str, *others: str) -> float:
    """How many times longer a case takes than some others together: the median over the rounds, each by itself."""
    return median(times[ours][i] / sum(times[each][i] for each in others) for i in range(len(times[ours])))


def peak_bytes(work: Callable[[], object], known: Iterable[Tensor], device: torch.device) -> int:
    """The most bytes of tensors that live at once while `work` runs, beside those that were there before.

    Args:
        known: tensors that `work` is given; not counted where they are looked at anew (CPU).
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with LiveBytes(list(known)) as live:
        work()
    return live.peak
