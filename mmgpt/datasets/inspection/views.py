"""What a batch holds, in a form that can be shown: tokens as text, pixels as pictures, row by row."""

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from PIL import Image

from mmgpt.datasets.instruction import InstructionDataset
from mmgpt.datasets.joint import JointDataset, parts_of
from mmgpt.datasets.prompts import END_OF_CHUNK, EOS
from mmgpt.datasets.transforms import LoadImages, PrepareImages

from .pieces import Piece, to_pieces
from .sample_texts import tokenizing

SMALL = 112  # pixels of the longer side of an original, at most


class Picture(NamedTuple):
    """An image of a row: its `number` there (from 1), as the model gets it (`seen`), and where that comes from.

    `original` is the file's picture made small; `size` is its (width, height) in pixels before that.
    """

    number: int
    seen: Image.Image
    file: str
    size: tuple[int, int]
    original: Image.Image


class Sample(NamedTuple):
    """A sample in a row: where it is from (`record` is its number in `file`), its tokens and its pictures.

    `images` is the number of images that it had before any cut; `cut` tells that the length `limit` ends it before its
    end of sequence. (A cut right behind an earlier turn's end of sequence is not told from a whole sample.)
    """

    dataset: str
    source: str
    file: str
    record: int
    id: str
    pieces: list[Piece]
    pictures: list[Picture]
    images: int
    limit: int
    cut: bool

    @property
    def tokens(self) -> int:
        """Number of its tokens."""
        return sum(len(piece.ids) for piece in self.pieces)

    @property
    def learned(self) -> int:
        """Number of those that the loss counts."""
        return sum(len(piece.ids) for piece in self.pieces if piece.learned)


class Row(NamedTuple):
    """A row of a batch: its samples (one, or more where rows are packed), and padding tokens before and behind them."""

    number: int
    samples: list[Sample]
    left: int = 0
    right: int = 0

    @property
    def tokens(self) -> int:
        """Number of its tokens without padding."""
        return sum(sample.tokens for sample in self.samples)

    @property
    def learned(self) -> int:
        """Number of those that the loss counts."""
        return sum(sample.learned for sample in self.samples)

    @property
    def padding(self) -> int:
        """Number of padding tokens."""
        return self.left + self.right


def shown_parts(dataset) -> list[InstructionDataset]:
    """The instruction datasets within a built dataset: itself, the parts of a JointDataset, what a wrapper wraps.

    Raises:
        ValueError: it is of another kind.
    """
    inner = [getattr(part, "dataset", part) for part in parts_of(dataset)]
    for part in inner:
        if not isinstance(part, InstructionDataset):
            raise ValueError(f"a dataset of type {type(part).__name__} cannot be shown, only InstructionDataset")
    return inner


def name_of(dataset, idx: int) -> str:
    """The name of the instruction dataset that an index of a built dataset leads to."""
    return dataset.locate(idx)[0].name if isinstance(dataset, JointDataset) else shown_parts(dataset)[0].name


def read_rows(batch: Mapping, parts: Sequence[InstructionDataset], only: str | None = None) -> list[Row]:
    """The rows of a batch of `collate_conversations`.

    Args:
        batch: its `samples` (B, L), where there are any, tell which sample of the batch each token belongs to, -1 for
            padding; `sources` and `metas` then have an entry for each sample. Without them each row is a sample.
        parts: the datasets that its samples are from.
        only: leave out rows without a sample of the dataset of this name.
    """
    owners = batch.get("samples")
    if owners is None:
        own = torch.arange(len(batch["input_ids"]))[:, None]
        owners = torch.where(batch["attention_mask"].bool(), own, -1)
    rows = []
    for number, owner in enumerate(owners.tolist()):
        runs = [(sample, len(list(run))) for sample, run in groupby(owner)]
        if only is None or any(batch["metas"][sample]["dataset"] == only for sample, _ in runs if sample >= 0):
            rows.append(_row(batch, number, runs, parts))
    return rows


def _row(batch: Mapping, number: int, runs: Sequence[tuple[int, int]], parts: Sequence[InstructionDataset]) -> Row:
    samples, start, images = [], 0, 0
    for sample, length in runs:
        if sample >= 0:
            samples.append(_sample(batch, number, sample, slice(start, start + length), images, parts))
            images += len(samples[-1].pictures)
        start += length
    left, right = (length if sample < 0 else 0 for sample, length in (runs[0], runs[-1]))
    return Row(number, samples, left, right)


def _sample(
    batch: Mapping, row: int, number: int, place: slice, images: int, parts: Sequence[InstructionDataset]
) -> Sample:
    """A sample at a place of a row, in which `images` images come before its own."""
    meta = batch["metas"][number]
    part = next(part for part in parts if (part.name, part.ann_file) == (meta["dataset"], meta["file"]))
    step = tokenizing(part)
    ids, labels = (batch[key][row, place].tolist() for key in ("input_ids", "labels"))
    pieces = to_pieces(step.tokenizer, ids, labels)
    own = sum(piece.kind == "image" for piece in pieces)
    pictures = _pictures(part, meta["images"], batch["pixels"][row, images : images + own], images) if own else []
    cut = len(ids) == step.max_length and ids[-1] not in (step.special[EOS], step.special[END_OF_CHUNK])
    origin = (meta[key] for key in ("dataset", "source", "file", "record", "id"))
    return Sample(*origin, pieces, pictures, len(meta["images"]), step.max_length, cut)


def _pictures(part: InstructionDataset, files: Sequence[str], pixels: torch.Tensor, before: int) -> list[Picture]:
    prepare = next((step for step in part.pipeline.transforms if isinstance(step, PrepareImages)), None)
    if prepare is None:
        raise ValueError(f"dataset {part.name!r} has no pixels to show: set image_steps='${{pixel_steps}}'")
    folder = part.data_prefix.get("img", "")
    # Those whose <image> token was cut away are not among the pixels.
    originals = LoadImages()({"image_folder": folder, "images": files[: len(pixels)]})["pil"]
    pictures = []
    for seen, file, original in zip(prepare.restore(pixels).numpy(), files, originals, strict=False):
        size = original.size
        original.thumbnail((SMALL, SMALL))
        number = before + len(pictures) + 1
        pictures.append(Picture(number, Image.fromarray(seen), os.path.join(folder, file), size, original))
    return pictures
