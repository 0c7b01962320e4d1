"""Collate function: samples to a batch."""

from collections.abc import Sequence

import torch
from mmengine.registry import FUNCTIONS
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mmgpt.models.loss import IGNORE_INDEX
from mmgpt.utils.errors import SampleError, SampleLocation

from .instruction import SOURCES
from .packing import pack_rows

SIDES = ("right", "left")


# MMEngine looks this function up in the root registry by its bare name, whatever the default scope is.
@FUNCTIONS.register_module()
def collate_conversations(
    batch: Sequence[dict], pad_token_id: int = 0, padding_side: str = "right", row_length: int | None = None
) -> dict:
    """Batch of samples of PackInputs, with images or without.

    Args:
        batch: samples; without `row_length`, each is one of B rows. An empty batch gives one row of one token without a
            label, with which a process that has no more samples takes part in the last step.
        pad_token_id: any valid id: padding is masked in attention and has no labels.
        padding_side: 'right' for training, 'left' for generation.
        row_length: with a number, several samples are packed into a row of at most so many tokens; L is chosen for the
            least padding (see `packing`). For training only.

    Returns:
        `pixels` float32 (B, T, 3, H, W), zeros after a row's own images, or None when no row has an image; with tiles
        (B, T, F, 3, H, W), zeros after an image's own F frames, and their `tile_ids` int64 (B, T, F), -1 there;
        `image_counts` int64 (B,); `input_ids`, `labels` (-100 for tokens without a label) and `attention_mask` int64
        (B, L); `sample_ids` None, or with `row_length` int64 (B, L): for each token the index of its sample in `batch`,
        -1 for padding; `turn_ids` None, or beside `sample_ids` int64 (B, L) where a sample has separate turns: the
        number of each token's turn, 0 for what the turns share, and in other samples; `candidates` (None where no
        sample has any), `sources` and `metas`, an entry for each sample.

    Raises:
        ValueError: unknown side, or packed rows with padding on the left.
        SampleError: a sample is longer than a row.
    """
    if padding_side not in SIDES:
        raise ValueError(f"padding_side={padding_side!r}: choose among {', '.join(SIDES)}")
    if row_length is not None and padding_side == "left":
        raise ValueError("row_length is for training, whose padding_side is 'right'")
    if not batch:
        token = torch.ones(1, 1, dtype=torch.long)
        absent = dict.fromkeys(("pixels", "tile_ids", "sample_ids", "turn_ids", "candidates"))
        tensors = {"input_ids": token * pad_token_id, "labels": token * IGNORE_INDEX, "attention_mask": token}
        return {**tensors, **absent, "image_counts": torch.zeros(1, dtype=torch.long), "sources": [], "metas": []}
    # 1. Choose the samples of each row.
    length, row_indices = 0, [[i] for i in range(len(batch))]
    if row_length is not None:
        lengths = [len(sample["input_ids"]) for sample in batch]
        longest = max(range(len(batch)), key=lengths.__getitem__)
        if lengths[longest] > row_length:
            reason = f"{lengths[longest]} tokens, more than row_length={row_length} of the collate_fn"
            raise SampleError(reason, SampleLocation.of(batch[longest]["meta"]))
        length, row_indices = pack_rows(lengths, row_length)
    # 2. Pad the images of all samples to one number of frames.
    pixels, tile_ids = _padded_frames(batch)
    tiled = any(ids is not None for ids in tile_ids)
    # 3. Join the samples of each row.
    turn_ids = [sample.get("turn_ids") for sample in batch]
    separate = any(ids is not None for ids in turn_ids)
    turn_ids = [
        torch.zeros_like(sample["input_ids"]) if ids is None else ids
        for sample, ids in zip(batch, turn_ids, strict=True)
    ]
    rows = []
    for indices in map(sorted, row_indices):
        labels = [batch[i]["labels"].clone() for i in indices]
        for later in labels[1:]:
            later[0] = IGNORE_INDEX  # The last token of the sample before must not predict it.
        images = [i for i in indices if pixels[i] is not None]
        row = {
            "input_ids": torch.cat([batch[i]["input_ids"] for i in indices]),
            "labels": torch.cat(labels),
            "pixels": torch.cat([pixels[i] for i in images]) if images else None,
            "tile_ids": torch.cat([tile_ids[i] for i in images]) if images and tiled else None,
            "sample_ids": torch.cat([torch.full_like(batch[i]["input_ids"], i) for i in indices]),
            "turn_ids": torch.cat([turn_ids[i] for i in indices]),
        }
        rows.append(row)
    # 4. Pad the rows to one length, and to one number of images.
    candidates = [sample.get("candidates") or [] for sample in batch]

    def pad_images(key: str, value: int) -> Tensor | None:
        images = [row[key] for row in rows if row[key] is not None]
        if not images:
            return None
        padded = images[0].new_full((len(rows), max(map(len, images)), *images[0].shape[1:]), value)
        for row_images, row in zip(padded, rows, strict=True):
            if row[key] is not None:
                row_images[: len(row[key])] = row[key]
        return padded

    def pad(key: str, value: int) -> Tensor:
        padded = pad_sequence([row[key] for row in rows], True, value, padding_side)
        return F.pad(padded, (0, max(0, length - padded.shape[1])), value=value)

    return {
        "pixels": pad_images("pixels", 0),
        "tile_ids": pad_images("tile_ids", -1),
        "image_counts": torch.tensor([0 if row["pixels"] is None else len(row["pixels"]) for row in rows]),
        "input_ids": pad("input_ids", pad_token_id),
        "labels": pad("labels", IGNORE_INDEX),
        "attention_mask": (pad("sample_ids", -1) >= 0).long(),
        "sample_ids": pad("sample_ids", -1) if separate or row_length is not None else None,
        "turn_ids": pad("turn_ids", 0) if separate else None,
        "candidates": candidates if any(candidates) else None,
        "sources": [sample["source"] for sample in batch],
        "metas": [sample["meta"] for sample in batch],
    }


def _padded_frames(batch: Sequence[dict]) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """The `pixels` and `tile_ids` of samples, with as many frames in each if any has tiles.

    Images without tiles among others with them are a single frame, their own whole.
    """
    pixels, tile_ids = [sample["pixels"] for sample in batch], [sample.get("tile_ids") for sample in batch]
    frames = max((ids.shape[1] for ids in tile_ids if ids is not None), default=0)
    if frames:
        for i, ids in enumerate(tile_ids):
            if pixels[i] is not None and ids is None:
                pixels[i], ids = pixels[i][:, None], torch.zeros(len(pixels[i]), 1, dtype=torch.long)
            if ids is not None:
                missing = frames - ids.shape[1]
                tile_ids[i] = F.pad(ids, (0, missing), value=-1)
                pixels[i] = F.pad(pixels[i], (0, 0) * (pixels[i].ndim - 2) + (0, missing))
    return pixels, tile_ids


def count_label_tokens(batch: dict) -> dict[str, int]:
    """Number of label tokens of each source in a batch of `collate_conversations`."""
    has_label = batch["labels"][:, 1:] != IGNORE_INDEX
    rows = torch.arange(len(has_label))[:, None].expand_as(batch["labels"])
    sample_ids = (rows if batch["sample_ids"] is None else batch["sample_ids"])[:, 1:][has_label]
    sources = torch.tensor([SOURCES.index(source) for source in batch["sources"]], dtype=torch.long)
    counts = torch.bincount(sources[sample_ids], minlength=len(SOURCES))
    return dict(zip(SOURCES, counts.tolist(), strict=True))
