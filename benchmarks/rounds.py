"""Measuring things in turns, so that what else runs on the machine slows all of them alike."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from mmgpt.engine.hooks.progress_bar import progress_bar
from mmgpt.models.memory.planner import LiveBytes

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


@dataclass(frozen=True)
class Decoding:
    """The tokens of an answer after the first; called, it gives the seconds of each.

    Attributes:
        model: its input embeddings are looked up once a step.
        timer: of its device.
        work: makes so many `tokens`.
        reads: whether each step multiplies by all weights of the model; the peer's has an image tower, too.
    """

    model: nn.Module
    timer: Timer
    work: Callable[[], object]
    tokens: int
    reads: bool = True

    def __call__(self) -> float:
        """From the start of the step that makes the second one."""
        starts: list[float] = []
        hook = self.model.get_input_embeddings().register_forward_pre_hook(lambda *_: starts.append(self.timer.clock()))
        begin = self.timer.clock()
        end = begin + self.timer(self.work)
        hook.remove()
        return (end - starts[1 - self.tokens]) / (self.tokens - 1)

    def figures(self) -> dict[str, int]:
        """weight_bytes: of what each step multiplies by; not the table of embeddings, unless it is the head as well."""
        if not self.reads:
            return {}
        table = self.model.get_input_embeddings().weight
        tied = table is self.model.get_output_embeddings().weight
        return dict(weight_bytes=sum(each.nbytes for each in self.model.parameters() if tied or each is not table))


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
