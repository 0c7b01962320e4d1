"""Views of a batch for people: tokens as text, pixels as images, row by row."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from mmgpt.datasets.image_folders import image_path
from mmgpt.datasets.instruction import InstructionDataset
from mmgpt.datasets.joint import JointDataset, mixed_datasets
from mmgpt.datasets.transforms import LoadImages, PrepareImages
from mmgpt.models.tiles import tile_places
from mmgpt.utils.data_uri import short_name

from .text_checks import tokenize_step
from .token_spans import TokenSpan, to_token_spans

THUMBNAIL = 112  # pixels of the longer side of an original, at most
GAP = 4  # pixels between the tiles of an image


class ShownImage(NamedTuple):
    """An image of a row.

    Attributes:
        number: its number in the row, from 1.
        prepared: the image as the model gets it; of a tiled image all frames (see `tile_sheet`).
        file: path of its file, or the beginning of its data URI.
        size: (width, height) of the file's image in pixels.
        original: thumbnail of the file's image.
        tiles: number of its tiles; 0: the image is not cut.
    """

    number: int
    prepared: Image.Image
    file: str
    size: tuple[int, int]
    original: Image.Image
    tiles: int = 0


class Sample(NamedTuple):
    """A sample in a row.

    Attributes:
        dataset, source, file, record, id: where the sample comes from.
        spans: its tokens.
        shown_images: its images, without those whose `<image>` token is cut off.
        images: number of its images before truncation.
        limit: length limit in tokens.
        cut: whether the limit ends the sample before its end of sequence. A sample that is cut right after the end of
            an earlier turn counts as complete.
    """

    dataset: str
    source: str
    file: str
    record: int
    id: str
    spans: list[TokenSpan]
    shown_images: list[ShownImage]
    images: int
    limit: int
    cut: bool

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(len(span.ids) for span in self.spans)

    @property
    def supervised(self) -> int:
        """Number of label tokens."""
        return sum(len(span.ids) for span in self.spans if span.supervised)


class Row(NamedTuple):
    """A row of a batch: its samples (several in packed rows), and the padding tokens before and after them."""

    number: int
    samples: list[Sample]
    left: int = 0
    right: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return sum(sample.tokens for sample in self.samples)

    @property
    def supervised(self) -> int:
        """Number of label tokens."""
        return sum(sample.supervised for sample in self.samples)

    @property
    def padding(self) -> int:
        """Number of padding tokens."""
        return self.left + self.right


def shown_datasets(dataset) -> list[InstructionDataset]:
    """Instruction datasets inside a built dataset: itself, those of a JointDataset, those of wrappers.

    Raises:
        ValueError: it contains a dataset of another type, or a stream, whose images are gone when a batch is shown.
    """
    datasets = [getattr(member, "dataset", member) for member in mixed_datasets(dataset)]
    for member in datasets:
        if getattr(member, "stream", None) is not None:
            raise ValueError(f"dataset {member.name!r} is a stream, whose shards have to be copied to be shown")
        if not isinstance(member, InstructionDataset):
            raise ValueError(f"a dataset of type {type(member).__name__} cannot be shown, only InstructionDataset")
    return datasets


def dataset_name(dataset, idx: int) -> str:
    """Name of the instruction dataset that an index of a built dataset leads to."""
    return dataset.locate(idx)[0].name if isinstance(dataset, JointDataset) else shown_datasets(dataset)[0].name


def tile_sheet(frames: np.ndarray, tile_ids: Sequence[int]) -> np.ndarray:
    """One image (H', W', 3) of the frames of a tiled image: the whole image, and beside it its tiles in their grid.

    Args:
        frames: uint8 (F, H, W, 3).
        tile_ids: F places, -1 for padding.
    """
    height, width = frames.shape[1:3]
    known = tile_places(max(tile_ids) + 1)
    places = [known[tile_id] for tile_id in tile_ids if tile_id >= 0]
    rows, columns = places[-1].rows, places[-1].columns
    if rows * columns == 1:
        return frames[0]
    sheet = np.full((rows * (height + GAP) - GAP, (columns + 1) * (width + GAP), 3), 255, np.uint8)
    sheet[:height, :width] = frames[0]
    for tile, place in zip(frames[1:], places[1:], strict=False):
        top, left = place.row * (height + GAP), (place.column + 1) * (width + GAP) + GAP
        sheet[top : top + height, left : left + width] = tile
    return sheet


def read_rows(batch: Mapping, datasets: Sequence[InstructionDataset], only: str | None = None) -> list[Row]:
    """Rows of a batch of `collate_conversations`.

    Args:
        batch: if its `sample_ids` (B, L) are not None, they are the index of each token's sample in `sources` and
            `metas`, -1 for padding; else each row is a sample.
        datasets: datasets of the samples.
        only: name of a dataset; rows without a sample of it are left out.
    """
    sample_indices = batch.get("sample_ids")
    if sample_indices is None:
        rows = torch.arange(len(batch["input_ids"]))[:, None]
        sample_indices = torch.where(batch["attention_mask"].bool(), rows, -1)
    rows = []
    for number, indices in enumerate(sample_indices.tolist()):
        runs = [(index, len(list(run))) for index, run in groupby(indices)]
        if only is not None and all(batch["metas"][index]["dataset"] != only for index, _ in runs if index >= 0):
            continue
        samples, start, images = [], 0, 0
        for index, length in runs:
            if index >= 0:
                samples.append(_sample(batch, number, index, slice(start, start + length), images, datasets))
                images += len(samples[-1].shown_images)
            start += length
        left, right = (length if index < 0 else 0 for index, length in (runs[0], runs[-1]))
        rows.append(Row(number, samples, left, right))
    return rows


def _sample(
    batch: Mapping, row: int, index: int, positions: slice, before: int, datasets: Sequence[InstructionDataset]
) -> Sample:
    """Sample `index` of a batch at some positions of a row, with `before` images of the row before its own."""
    meta = batch["metas"][index]
    dataset = next(data for data in datasets if data.name == meta["dataset"] and meta["file"] in data.files)
    step = tokenize_step(dataset)
    ids, labels = (batch[key][row, positions].tolist() for key in ("input_ids", "labels"))
    spans = to_token_spans(step.tokenizer, ids, labels)
    count = sum(span.kind == "image" for span in spans)
    shown_images = []
    if count:
        prepare = next((step for step in dataset.pipeline.transforms if isinstance(step, PrepareImages)), None)
        if prepare is None:
            raise ValueError(f"dataset {dataset.name!r} has no pixels to show: set image_steps='${{pixel_steps}}'")
        shown = slice(before, before + count)
        pixels = prepare.restore(batch["pixels"][row, shown]).numpy()
        tiles = [0] * len(pixels)
        if batch.get("tile_ids") is not None:
            tile_ids = batch["tile_ids"][row, shown].tolist()
            pixels = [tile_sheet(*image) for image in zip(pixels, tile_ids, strict=True)]
            tiles = [sum(tile_id > 0 for tile_id in ids) for ids in tile_ids]
        folder = dataset.image_folder
        # Images whose <image> token is cut off are not among the pixels.
        files = meta["images"][: len(pixels)]
        originals = LoadImages()({"image_folder": folder, "images": files})["pil"]
        for prepared, file, original, cut in zip(pixels, files, originals, tiles, strict=False):
            size = original.size
            original.thumbnail((THUMBNAIL, THUMBNAIL))
            number, name = before + len(shown_images) + 1, short_name(image_path(folder, file))
            shown_images.append(ShownImage(number, Image.fromarray(prepared), name, size, original, cut))
    cut = len(ids) == step.max_length and ids[-1] not in step.tokenizer.all_special_ids
    origin = (meta[key] for key in ("dataset", "source", "file", "record", "id"))
    return Sample(*origin, spans, shown_images, len(meta["images"]), step.max_length, cut)
