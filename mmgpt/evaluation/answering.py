"""Questions in, judged answers out: one pass of a model over a data loader."""

from collections.abc import Callable, Iterable

import torch

from mmgpt.evaluation.metrics.answers import judge


@torch.inference_mode()
def answer_all(model: torch.nn.Module, loader: Iterable, seen: Callable[[int], object] | None = None) -> list[dict]:
    """Let a model (eval mode, with MMEngine's ``test_step``) answer every batch of a loader; judge each answer.

    ``seen`` is called with the number of questions after each batch, e.g. to move a progress bar. Rows are those of
    ``mmgpt.evaluation.metrics.answers.judge``, in the order of the loader.
    """
    rows = []
    for batch in loader:
        answers = model.test_step(batch)
        rows += [judge(answer) for answer in answers]
        if seen:
            seen(len(answers))
    return rows
