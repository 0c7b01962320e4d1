"""The pictures that rows of an evaluation are about, found by the dataset configs that it was made with."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from mmgpt.datasets.transforms import LoadImages

BOX = (96, 64)


class Pictures:
    """Opens the pictures of rows.

    Args:
        datasets: a dataset config, or any nesting of them.

    Attributes:
        lost: what is wrong with those that could not be opened.
    """

    def __init__(self, datasets: Mapping):
        self.folders, self.lost = dict(image_folders(datasets)), []

    def of(self, row: Mapping) -> list[Image.Image]:
        """The pictures of a row, as a model gets them but for their size; a grey box for one that cannot be opened."""
        folder = self.folders.get(row["dataset"], Path())
        return [self._open(folder, name) for name in row.get("images") or ()]

    def _open(self, folder: Path, name: str) -> Image.Image:
        try:
            return LoadImages()({"images": [name], "image_folder": folder})["pil"][0]
        except (FileNotFoundError, ValueError) as error:
            self.lost.append(str(error))
            return missing()


def image_folders(datasets) -> Iterator[tuple[str, Path]]:
    """The name of each dataset among some configs, and the folder that the paths of its images start from."""
    if isinstance(datasets, Mapping) and "ann_file" in datasets:
        parser, prefix = datasets.get("parser"), datasets.get("data_prefix") or {}
        name = datasets.get("name") or (parser if isinstance(parser, str) else parser["type"])
        yield name, Path(datasets.get("data_root") or "", prefix.get("img") or "")
    elif isinstance(datasets, Mapping):
        yield from image_folders(list(datasets.values()))
    elif isinstance(datasets, Sequence) and not isinstance(datasets, str):
        for part in datasets:
            yield from image_folders(part)


def missing() -> Image.Image:
    """A grey box in the place of a picture."""
    box = Image.new("RGB", BOX, "#a0a4a8")
    ImageDraw.Draw(box).text((BOX[0] / 2, BOX[1] / 2), "no file", "black", anchor="mm")
    return box
