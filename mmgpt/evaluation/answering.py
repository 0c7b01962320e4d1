"""Judged answers of a model to all batches of a data loader."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch

from mmgpt.evaluation.metrics.answers import scored_row


def answer_all(
    model: torch.nn.Module, loader: Iterable, progress: Callable[[int], object] | None = None, threads: int = 1
) -> list[dict]:
    """Judged answers of a model to every batch of a loader.

    Args:
        model: in eval mode, with MMEngine's ``test_step``, which several threads may call at once.
        loader: batches of the collate function.
        progress: called with the number of questions after each batch, e.g. to move a progress bar.
        threads: number of batches answered at once, each in a thread of its own on one core. For small models on a CPU
            this is faster than one batch on all cores, whose threads mostly wait for each other.

    Returns:
        Rows of ``mmgpt.evaluation.metrics.answers.scored_row``, in the order of the loader.
    """

    def answer(batch) -> list[dict]:
        # The inference mode of the calling thread does not reach this one.
        with torch.inference_mode():
            return [scored_row(row) for row in model.test_step(batch)]

    rows: list[dict] = []

    def take(future) -> None:
        answers = future.result()
        rows.extend(answers)
        if progress:
            progress(len(answers))

    futures: deque = deque()
    # Each of several threads computes on one core. This setting of torch also affects threads that start later, so it
    # is restored at the end.
    cores = torch.get_num_threads()
    one_core = dict(initializer=torch.set_num_threads, initargs=(1,)) if threads > 1 else {}
    try:
        with ThreadPoolExecutor(threads, **one_core) as pool:
            for batch in loader:
                futures.append(pool.submit(answer, batch))
                # At most one batch more than there are threads is loaded at a time.
                if len(futures) > threads:
                    take(futures.popleft())
            while futures:
                take(futures.popleft())
    finally:
        torch.set_num_threads(cores)
    return rows


def cpu_threads(model: torch.nn.Module, most: int = 8) -> int:
    """Number of batches to answer at once: on a CPU one per core that torch would use, on a GPU one."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return min(torch.get_num_threads(), most) if on_cpu else 1
