"""Check of image files by their headers and last bytes."""

import os
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import PurePath
from typing import NamedTuple

from PIL import Image
from torch.utils.data import Dataset

from mmgpt.utils.data_uri import is_data_uri, read_data_uri

from .shards.images import image_source, is_shard_image, read_shard_image, shard_of
from .transforms.images import exif_orientation
from .untrusted_images import open_image

# Suffixes of image files that are looked for in folders and archives; Pillow reads all of these formats.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
SUFFIXES += (".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif")
# Last bytes of a complete file. Files of other formats, and files that end otherwise, are decoded for the check.
ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
TAIL = 64  # bytes; some writers fill the last block with zeros
SMALLEST_SIDE = 16  # pixels
MAX_ASPECT_RATIO = 10  # longer side over shorter side: a center crop shows a tenth of such an image


def is_hidden(path: str | PurePath) -> bool:
    """Whether a path in a folder or an archive is that of a hidden file, or of one that macOS adds to archives."""
    return any(part == "__MACOSX" or part.strip(".") and part[0] == "." for part in PurePath(path).parts)


class ImageFile(NamedTuple):
    """Result of the check of an image file.

    Attributes:
        path: path of the file, or a data URI.
        size: (width, height) in pixels, where known.
        problem: '', 'missing_image', 'unreadable_image', or 'unusual_image' for an image that can be read but may not
            look as expected.
        message: describes the problem.
    """

    path: str
    size: tuple[int, int] | None = None
    problem: str = ""
    message: str = ""


class ImageFiles(Dataset):
    """The ImageFile of each path."""

    def __init__(self, paths: Sequence[str]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> ImageFile:
        return check_image_file(self.paths[i])


def check_image_file(path: str) -> ImageFile:
    """Check of a data URI, or of an image file.

    A file is checked by its header, and by its pixels if its size or its end leaves doubt that it is complete. Damage
    in the middle of a file, which only decoding shows, is not found.
    """
    if is_data_uri(path):
        try:
            return ImageFile(path, open_image(read_data_uri(path)).size)
        except ValueError as error:
            return ImageFile(path, problem="unreadable_image", message=str(error))
    if not os.path.exists(shard_of(path)):
        return ImageFile(path, problem="missing_image", message="no such file")
    if not os.path.isfile(shard_of(path)):
        return ImageFile(path, problem="unreadable_image", message="a folder, not a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with BytesIO(read_shard_image(path)) if is_shard_image(path) else open(path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                if not size:
                    return ImageFile(path, problem="unreadable_image", message="an empty file")
                file.seek(-min(TAIL, size), os.SEEK_END)
                end = file.read().rstrip(b"\0")
            with Image.open(image_source(path)) as image:
                is_complete = image.format in ENDS and end.endswith(ENDS[image.format])
                if _is_huge(image) or not is_complete:
                    image.load()
                message = "; ".join(_unusual_properties(image))
                return ImageFile(path, image.size, "unusual_image" if message else "", message)
    # Pillow's plugins raise errors of any type for damaged files.
    except Exception as error:
        return ImageFile(path, problem="unreadable_image", message=str(error) or type(error).__name__)


def _is_huge(image: Image.Image) -> bool:
    """Whether an image has more pixels than Pillow reads without a warning; Pillow refuses twice as many."""
    return image.width * image.height > Image.MAX_IMAGE_PIXELS


def _unusual_properties(image: Image.Image) -> list[str]:
    """Descriptions of the properties in which an image differs from most."""
    width, height = image.size
    # Without this test, reading the EXIF data of a PNG would decode its pixels.
    orientation = exif_orientation(image) if "exif" in image.info else 1
    properties = {
        f"{width} x {height} pixels": min(width, height) < SMALLEST_SIDE
        or max(width, height) > MAX_ASPECT_RATIO * min(width, height)
        or _is_huge(image),
        "16 bits a pixel, of which the upper 8 are read": image.mode.startswith("I;16"),
        f"numbers of unknown range (mode {image.mode}), cut off at 255 when read": image.mode in ("I", "F"),
        "transparency, laid on white": image.has_transparency_data,
        "CMYK colors": image.mode == "CMYK",
        "animated, only its first frame is read": image.format != "MPO" and getattr(image, "is_animated", False),
        f"turned by its EXIF orientation {orientation}": orientation != 1,
    }
    return [name for name, applies in properties.items() if applies]
