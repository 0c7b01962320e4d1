"""Samples to a batch."""

from collections.abc import Sequence

import torch
from mmengine.registry import FUNCTIONS
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mmgpt.utils.errors import SampleError, SampleLocation

from .instruction import SOURCES
from .packing import Rows, pack_rows
from .transforms.tokens import IGNORE_INDEX

SIDES = ("right", "left")


# In the root registry, where MMEngine looks it up by its bare name, whatever the default scope is.
@FUNCTIONS.register_module()
def collate_conversations(
    batch: Sequence[dict], pad_token_id: int = 0, padding_side: str = "right", row_length: int | None = None
) -> dict:
    """A batch of what PackInputs gives, with images or without.

    Args:
        batch: samples; without `row_length`, each is one of B rows. None gives a row of one token that is not learned:
            a process that has run out of samples takes part in the last step with it.
        pad_token_id: any valid id: padded places are masked in attention and never learned.
        padding_side: 'right' for training, 'left' for generation.
        row_length: several samples share a row, of so many tokens at most; L is such that there is the least padding
            (see `packing`). For training only.

    Returns:
        `pixels` float32 (B, T, 3, H, W), zeros behind a row's own images, or None when no row has one;
        `image_counts` int64 (B,); `input_ids`, `labels` (-100 where nothing is learned) and `attention_mask` int64
        (B, L); `samples` None, or with `row_length` int64 (B, L): for each token the number of its sample in `batch`,
        -1 for padding; `candidates` (None where no sample has any), `sources` and `metas`, an entry for each sample.

    Raises:
        ValueError: unknown side, a sample is longer than a row (names it), or rows of several are padded on the left.
    """
    if padding_side not in SIDES:
        raise ValueError(f"padding_side={padding_side!r}: choose among {', '.join(SIDES)}")
    if row_length is not None and padding_side == "left":
        raise ValueError("row_length is for training, whose padding_side is 'right'")
    if not batch:
        return _nothing(pad_token_id)
    length, numbers = (0, [[i] for i in range(len(batch))]) if row_length is None else _packed(batch, row_length)
    rows = [_joined(batch, row) for row in numbers]
    candidates = [sample.get("candidates") or [] for sample in batch]

    def pad(key: str, value: int) -> Tensor:
        padded = pad_sequence([row[key] for row in rows], True, value, padding_side)
        return F.pad(padded, (0, max(0, length - padded.shape[1])), value=value)

    return {
        "pixels": _stack_images([row["pixels"] for row in rows]),
        "image_counts": torch.tensor([0 if row["pixels"] is None else len(row["pixels"]) for row in rows]),
        "input_ids": pad("input_ids", pad_token_id),
        "labels": pad("labels", IGNORE_INDEX),
        "attention_mask": (pad("samples", -1) >= 0).long(),
        "samples": None if row_length is None else pad("samples", -1),
        "candidates": candidates if any(candidates) else None,
        "sources": [sample["source"] for sample in batch],
        "metas": [sample["meta"] for sample in batch],
    }


def learned_tokens(batch: dict) -> dict[str, int]:
    """Number of learned tokens of each source in a batch of `collate_conversations`."""
    learned = batch["labels"][:, 1:] != IGNORE_INDEX
    rows = torch.arange(len(learned))[:, None].expand_as(batch["labels"])
    owners = (rows if batch["samples"] is None else batch["samples"])[:, 1:][learned]
    places = torch.tensor([SOURCES.index(source) for source in batch["sources"]], dtype=torch.long)
    counts = torch.bincount(places[owners], minlength=len(SOURCES))
    return dict(zip(SOURCES, counts.tolist(), strict=True))


def _nothing(pad_token_id: int) -> dict:
    one = torch.ones(1, 1, dtype=torch.long)
    tensors = {"input_ids": one * pad_token_id, "labels": one * IGNORE_INDEX, "attention_mask": one}
    absent = dict.fromkeys(("pixels", "samples", "candidates"))
    return {**tensors, **absent, "image_counts": torch.zeros(1, dtype=torch.long), "sources": [], "metas": []}


def _packed(batch: Sequence[dict], most: int) -> Rows:
    """The rows of some samples. ValueError when one is longer than a row may be."""
    lengths = [len(sample["input_ids"]) for sample in batch]
    longest = max(range(len(batch)), key=lengths.__getitem__)
    if lengths[longest] > most:
        reason = f"{lengths[longest]} tokens, more than row_length={most} of the collate_fn"
        raise SampleError(reason, SampleLocation.of(batch[longest]["meta"]))
    return pack_rows(lengths, most)


def _joined(batch: Sequence[dict], numbers: Sequence[int]) -> dict:
    """Some samples as one row, in their order, with the number of each token's sample."""
    numbers = sorted(numbers)
    row = [batch[i] for i in numbers]
    labels = [sample["labels"].clone() for sample in row]
    for later in labels[1:]:
        later[0] = IGNORE_INDEX  # it would be learned from the end of the sample before
    pixels = [sample["pixels"] for sample in row if sample["pixels"] is not None]
    return {
        "input_ids": torch.cat([sample["input_ids"] for sample in row]),
        "labels": torch.cat(labels),
        "pixels": torch.cat(pixels) if pixels else None,
        "samples": torch.cat([torch.full_like(batch[i]["input_ids"], i) for i in numbers]),
    }


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
