"""Images of the rows of an evaluation, whose folders come from the dataset configs of that evaluation."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from mmgpt.datasets.transforms import LoadImages
from mmgpt.utils.shard_files import annotation_path, names_shards, shard_folder

PLACEHOLDER_SIZE = (96, 64)


class RowImages:
    """Loader of the images of rows.

    Args:
        datasets: a dataset config, or dataset configs nested in dicts and lists.

    Attributes:
        errors: messages about images that could not be opened.
    """

    def __init__(self, datasets: Mapping):
        self.folders, self.errors = dict(image_folders(datasets)), []

    def load(self, row: Mapping) -> list[Image.Image]:
        """The images of a row, upright, in RGB, of the files' sizes; a gray box stands for one that fails to open."""
        folder, images = self.folders.get(row["dataset"], Path()), []
        for name in row.get("images") or ():
            try:
                images += LoadImages()({"images": [name], "image_folder": folder})["pil"]
            except (FileNotFoundError, ValueError) as error:
                self.errors.append(str(error))
                images.append(placeholder())
        return images


def image_folders(datasets) -> Iterator[tuple[str, Path]]:
    """Pairs of the name of each dataset among the configs and the folder that its image paths start from."""
    if isinstance(datasets, Mapping) and "ann_file" in datasets:
        parser, prefix = datasets.get("parser"), datasets.get("data_prefix") or {}
        name = datasets.get("name") or (parser if isinstance(parser, str) else parser["type"])
        root = datasets.get("data_root") or ""
        file = annotation_path(root, datasets["ann_file"])
        yield name, Path(shard_folder(file) if names_shards(file) else os.path.join(root, prefix.get("img") or ""))
    elif isinstance(datasets, Mapping):
        yield from image_folders(list(datasets.values()))
    elif isinstance(datasets, Sequence) and not isinstance(datasets, str):
        for dataset in datasets:
            yield from image_folders(dataset)


def placeholder() -> Image.Image:
    """Gray box that stands for an image that could not be opened."""
    box = Image.new("RGB", PLACEHOLDER_SIZE, "#a0a4a8")
    ImageDraw.Draw(box).text((PLACEHOLDER_SIZE[0] / 2, PLACEHOLDER_SIZE[1] / 2), "no file", "black", anchor="mm")
    return box
