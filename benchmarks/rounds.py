"""Measurements in turns, so that other programs on the machine slow all cases alike."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from mmgpt.models.memory.planner import LiveBytes
from mmgpt.utils.progress_bar import progress_bar

Case = Callable[[], float]
Times = Mapping[str, list[float]]


class Timer:
    """Timer of calls, which waits for a GPU to finish.

    Args:
        device: device that the calls compute on.
        process_time: on a CPU with a single thread, measure the processor time of this process, which other programs
            do not slow and in which waiting does not count, instead of wall-clock time.
    """

    def __init__(self, device: torch.device, process_time: bool = False):
        self.device = device
        single_thread = device.type == "cpu" and torch.get_num_threads() == 1
        self.clock = time.process_time if process_time and single_thread else time.perf_counter

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
    """Case of decoding: called, it returns the seconds per token after the first.

    Attributes:
        model: model whose input embeddings are looked up once per step.
        timer: timer of its device.
        work: call that generates as many `tokens`.
        reads_all_weights: whether each step multiplies by all weights of the model; the peer has an image encoder, too,
            which decoding does not use.
    """

    model: nn.Module
    timer: Timer
    work: Callable[[], object]
    tokens: int
    reads_all_weights: bool = True

    def __call__(self) -> float:
        """Seconds per token, from the start of the step that generates the second token."""
        starts: list[float] = []
        hook = self.model.get_input_embeddings().register_forward_pre_hook(lambda *_: starts.append(self.timer.clock()))
        begin = self.timer.clock()
        end = begin + self.timer(self.work)
        hook.remove()
        return (end - starts[1 - self.tokens]) / (self.tokens - 1)

    def figures(self) -> dict[str, int]:
        """`weight_bytes`: bytes of the weights of each step, with the embeddings only if they are tied to the head."""
        if not self.reads_all_weights:
            return {}
        table = self.model.get_input_embeddings().weight
        tied = table is self.model.get_output_embeddings().weight
        weights = [weight for weight in self.model.parameters() if tied or weight is not table]
        return dict(weight_bytes=sum(weight.nbytes for weight in weights))


def in_turns(cases: Mapping[str, Case], rounds: int, name: str = "rounds") -> dict[str, list[float]]:
    """The seconds of each case in each round: A B C, then C B A, and so on, after a warm-up round.

    Args:
        cases: functions that measure themselves once and return seconds, which need not include their preparation.
        rounds: number of rounds without the warm-up.
        name: name of the progress bar.
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
    """Ratio of the time of one case to that of several others together: the median of the ratios in each round."""
    return median(times[ours][i] / sum(times[other][i] for other in others) for i in range(len(times[ours])))


def peak_bytes(work: Callable[[], object], existing: Iterable[Tensor], device: torch.device) -> int:
    """Peak bytes of the tensors that `work` allocates.

    Args:
        existing: tensors that exist before; on the CPU they would be counted where `work` makes views of them.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with LiveBytes(list(existing)) as live:
        work()
    return live.peak
