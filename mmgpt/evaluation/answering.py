"""Questions in, judged answers out: one pass of a model over a data loader."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from mmgpt.evaluation.metrics.answers import judge


def answer_all(
    model: torch.nn.Module, loader: Iterable, seen: Callable[[int], object] | None = None, threads: int = 1
) -> list[dict]:
    """Let a model (eval mode, with MMEngine's ``test_step``) answer every batch of a loader; judge each answer.

    Args:
        model: keeps no state between calls, so that several threads can ask it at once.
        loader: batches as the collate function makes them.
        seen: called with the number of questions after each batch, e.g. to move a progress bar.
        threads: batches answered at once, each by a thread of its own that computes on one core. For small models on
            a CPU this is faster than one batch on all cores, whose threads mostly wait for each other.

    Returns:
        Rows of ``mmgpt.evaluation.metrics.answers.judge``, in the order of the loader.
    """

    def answer(batch) -> list[dict]:
        # The inference mode of the calling thread does not reach this one.
        with torch.inference_mode():
            return [judge(said) for said in model.test_step(batch)]

    rows: list[dict] = []

    def take(future) -> None:
        answers = future.result()
        rows.extend(answers)
        if seen:
            seen(len(answers))

    waiting: deque = deque()
    with _one_core_each(threads) as alone, ThreadPoolExecutor(threads, **alone) as pool:
        for batch in loader:
            waiting.append(pool.submit(answer, batch))
            # Not all batches are loaded at once: one more than there are threads.
            if len(waiting) > threads:
                take(waiting.popleft())
        while waiting:
            take(waiting.popleft())
    return rows


@contextmanager
def _one_core_each(threads: int) -> Iterator[dict]:
    """Arguments of ThreadPoolExecutor with which each of several threads computes on one core.

    torch's number of threads also becomes that of threads started later, so it is set back at the end.
    """
    before = torch.get_num_threads()
    try:
        yield dict(initializer=torch.set_num_threads, initargs=(1,)) if threads > 1 else {}
    finally:
        torch.set_num_threads(before)


def cpu_threads(model: torch.nn.Module, most: int = 8) -> int:
    """How many batches to answer at once: one per core that torch would use, on a GPU one."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return min(torch.get_num_threads(), most) if on_cpu else 1
