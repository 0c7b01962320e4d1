"""Samples to a batch."""

from collections.abc import Sequence

import torch
from mmengine.registry import FUNCTIONS
from torch import Tensor

from .transforms.tokens import IGNORED

SIDES = ("right", "left")


# In the root registry, where MMEngine looks it up by its bare name, whatever the default scope is.
@FUNCTIONS.register_module()
def collate_conversations(batch: Sequence[dict], pad_token_id: int = 0, padding_side: str = "right") -> dict:
    """A batch of what PackInputs gives, with images or without.

    Args:
        batch: B samples.
        pad_token_id: any valid id: padded places are masked in attention and never learned.
        padding_side: 'right' for training, 'left' for generation.

    Returns:
        `pixels` float32 (B, T, 3, H, W), zeros behind a row's own images, or None when no row has one;
        `image_counts` int64 (B,); `input_ids`, `labels` (-100 where nothing is learned) and `attention_mask` int64
        (B, L); `sources` and `metas`, a list entry per row.
    """
    if padding_side not in SIDES:
        raise ValueError(f"padding_side={padding_side!r}: choose among {', '.join(SIDES)}")
    ids = [sample["input_ids"] for sample in batch]
    return {
        "pixels": _stack_images([sample["pixels"] for sample in batch]),
        "image_counts": torch.tensor([0 if s["pixels"] is None else len(s["pixels"]) for s in batch]),
        "input_ids": _pad(ids, pad_token_id, padding_side),
        "labels": _pad([sample["labels"] for sample in batch], IGNORED, padding_side),
        "attention_mask": _pad([torch.ones_like(row) for row in ids], 0, padding_side),
        "sources": [sample["source"] for sample in batch],
        "metas": [sample["meta"] for sample in batch],
    }


def _pad(rows: Sequence[Tensor], value: int, side: str) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value, padding_side=side)


def _stack_images(rows: Sequence[Tensor | None]) -> Tensor | None:
    present = [row for row in rows if row is not None]
    if not present:
        return None
    most = max(len(row) for row in present)
    pixels = present[0].new_zeros(len(rows), most, *present[0].shape[1:])
    for place, row in zip(pixels, rows, strict=True):
        if row is not None:
            place[: len(row)] = row
    return pixels
