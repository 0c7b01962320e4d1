"""What can be told about an image file from its header and its last bytes."""

import os
import warnings
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from PIL import Image
from torch.utils.data import Dataset

from .transforms.images import exif_orientation

# The names of image files that are looked for in folders and archives; Pillow reads all of these.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
SUFFIXES += (".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif")
# How a whole file ends. Files of other formats, and those that end otherwise, are decoded to know.
ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
TAIL = 64  # bytes; some writers fill the last block with zeros
SMALLEST_SIDE = 16  # pixels
LONGEST = 10  # longer side over shorter side: the square in the middle shows a tenth of such a picture


def is_hidden(path: str | PurePath) -> bool:
    """Whether a path below a folder or in an archive is of a hidden file, or of what macOS adds to archives."""
    return any(part == "__MACOSX" or part.strip(".") and part[0] == "." for part in PurePath(path).parts)


class ImageFile(NamedTuple):
    """An image file: its path, (width, height) in pixels where known, and what is the matter with it, if anything.

    `problem` is '', 'missing_image', 'unreadable_image', or 'unusual_image' for one that can be read but may not look
    as expected; `what` says it in words.
    """

    path: str
    size: tuple[int, int] | None = None
    problem: str = ""
    what: str = ""


class ImageFiles(Dataset):
    """The ImageFile of each of some paths."""

    def __init__(self, paths: Sequence[str]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> ImageFile:
        return look_at(self.paths[i])


def look_at(path: str) -> ImageFile:
    """Reads the header of an image file, and its pixels only when its size or its end leaves in doubt if it is whole.

    Damage in the middle of a file, which only decoding shows, is not found.
    """
    if not os.path.exists(path):
        return ImageFile(path, problem="missing_image", what="no such file")
    if not os.path.isfile(path):
        return ImageFile(path, problem="unreadable_image", what="a folder, not a file")
    if not os.path.getsize(path):
        return ImageFile(path, problem="unreadable_image", what="an empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                if _is_huge(image) or not _ends_well(path, image.format):
                    image.load()
                what = "; ".join(_unusual(image))
                return ImageFile(path, image.size, "unusual_image" if what else "", what)
    # Pillow's plugins raise whatever their reading of a damaged file runs into.
    except Exception as error:
        return ImageFile(path, problem="unreadable_image", what=str(error) or type(error).__name__)


def _ends_well(path: str, kind: str | None) -> bool:
    """Whether a file ends as a whole one of its format does; False where that cannot be told."""
    if kind not in ENDS:
        return False
    with open(path, "rb") as file:
        file.seek(-min(TAIL, os.path.getsize(path)), os.SEEK_END)
        return file.read().rstrip(b"\0").endswith(ENDS[kind])


def _is_huge(image: Image.Image) -> bool:
    """Whether it has more pixels than Pillow reads without a warning; above the double it refuses to."""
    return image.width * image.height > Image.MAX_IMAGE_PIXELS


def _unusual(image: Image.Image) -> list[str]:
    """What is not as most pictures are."""
    width, height = image.size
    # Without this test, reading the EXIF data of a PNG decodes it.
    turned = exif_orientation(image) if "exif" in image.info else 1
    found = {
        f"{width} x {height} pixels": min(width, height) < SMALLEST_SIDE
        or max(width, height) > LONGEST * min(width, height)
        or _is_huge(image),
        "16 bits a pixel, of which the upper 8 are read": image.mode.startswith("I;16"),
        f"numbers of unknown range (mode {image.mode}), cut off at 255 when read": image.mode in ("I", "F"),
        "transparency, laid on white": image.has_transparency_data,
        "CMYK colours": image.mode == "CMYK",
        "animated, only its first frame is read": image.format != "MPO" and getattr(image, "is_animated", False),
        f"turned by its EXIF orientation {turned}": turned != 1,
    }
    return [what for what, true in found.items() if true]
