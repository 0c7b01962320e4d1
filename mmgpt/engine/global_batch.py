"""The global batch: all batches of one optimizer step, in all processes together."""

from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce, get_world_size

from mmgpt.datasets.collate import count_label_tokens


def set_totals(batches: Sequence[object]) -> None:
    """Set in each batch of a step the token counts by which its losses are divided.

    ``batch["totals"]`` becomes {source: float tensor ()}: the label tokens of that source in the whole global batch,
    divided by the number of batches there (those of the step times processes). A batch's loss is the sum over its label
    tokens divided by this number. The mean of the losses over batches and processes, which is what MMEngine and DDP
    make of their gradients, is the mean over all label tokens, however they are spread. A source without label tokens
    is left out. Batches of other data than conversations stay as they are.
    """
    if not all(isinstance(batch, dict) and {"labels", "sources"} <= batch.keys() for batch in batches):
        return
    counts = [count_label_tokens(batch) for batch in batches]
    sums = torch.tensor([sum(count[source] for count in counts) for source in counts[0]])
    all_reduce(sums)
    number = len(batches) * get_world_size()
    totals = {source: torch.tensor(int(total) / number) for source, total in zip(counts[0], sums, strict=True) if total}
    for batch in batches:
        batch["totals"] = totals
