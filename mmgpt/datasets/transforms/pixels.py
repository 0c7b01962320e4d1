"""Pixels of images: resizing, normalization, and cutting into tiles."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor
from torchvision.transforms import functional as F

from mmgpt.models.tiles import best_grid, tile_places

# How an image of another aspect ratio is resized, by the names that open_clip has for it.
RESIZE_MODES = ("shortest", "longest", "squash")


def clip_preprocessing(
    size: int | tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    resize_mode: str = "shortest",
) -> Compose:
    """CLIP's preprocessing, PIL image -> float32 (3, H, W); its arguments are those of PrepareImages.

    Args:
        size: side of a square, or (height, width).

    Raises:
        ValueError: unknown interpolation or resize mode.
    """
    mode = interpolation_mode(interpolation)
    if resize_mode not in RESIZE_MODES:
        raise ValueError(f"resize_mode={resize_mode!r}: choose among {', '.join(RESIZE_MODES)}")
    if isinstance(size, int) and resize_mode == "shortest":
        resize = [Resize(size, interpolation=mode), CenterCrop(size)]
    else:
        resize = [partial(_resize, size=size, interpolation=mode, resize_mode=resize_mode)]
    return Compose([*resize, ToTensor(), Normalize(mean, std)])


def _resize(
    image: Image.Image, size: int | tuple[int, int], interpolation: InterpolationMode, resize_mode: str
) -> Image.Image:
    """An image of this size: cropped at the center, with black borders, or with another aspect ratio."""
    height, width = (size, size) if isinstance(size, int) else size
    resized = [height, width]
    if resize_mode != "squash":
        scales = height / image.height, width / image.width
        scale = max(scales) if resize_mode == "shortest" else min(scales)
        resized = [max(1, round(side * scale)) for side in (image.height, image.width)]
    # A center crop adds black borders where the image is smaller.
    return F.center_crop(F.resize(image, resized, interpolation), [height, width])


def interpolation_mode(name: str) -> InterpolationMode:
    """torchvision's interpolation of a name; ValueError for an unknown one."""
    modes = {mode.value: mode for mode in InterpolationMode}
    if name not in modes:
        raise ValueError(f"unknown interpolation {name!r}: choose among {', '.join(modes)}")
    return modes[name]


def tile_cutter(
    mean: Sequence[float], std: Sequence[float], interpolation: str, max: int, resize_mode: str = "longest"
) -> Callable[[Image.Image, Tensor], tuple[Tensor, Tensor]] | None:
    """Function that cuts images into tiles, None where `max` is 1.

    It takes an image and its pixels (3, H, W), which have the size of a tile, and returns the frames (F, 3, H, W) and
    their `tile_ids` (F,): the pixels, and, of an image with more, its tiles.

    Args:
        mean, std, interpolation: see `clip_preprocessing`.
        max: largest number of tiles.
        resize_mode: how an image is brought to the size of the grid of its tiles (see `best_grid`).

    Raises:
        ValueError: `max` is not a number from 1 on, or see `clip_preprocessing`.
    """
    if type(max) is not int or max < 1:
        raise ValueError(f"tiles: max={max!r} must be a number of tiles, from 1 on")
    clip_preprocessing(1, mean, std, interpolation, resize_mode)

    def cut(image: Image.Image, pixels: Tensor) -> tuple[Tensor, Tensor]:
        height, width = pixels.shape[1:]
        rows, columns = best_grid(image.size, (width, height), max)
        if rows * columns == 1:
            return pixels[None], torch.zeros(1, dtype=torch.long)
        canvas = clip_preprocessing((rows * height, columns * width), mean, std, interpolation, resize_mode)(image)
        tiles = canvas.unflatten(2, (columns, width)).unflatten(1, (rows, height)).permute(1, 3, 0, 2, 4).flatten(0, 1)
        first = tile_places(max).index((rows, columns, 0, 0))
        return torch.cat([pixels[None], tiles]), torch.tensor([0, *range(first, first + len(tiles))])

    return None if max == 1 else cut


def prepare_images(
    images: Sequence[Image.Image], prepare: Callable[[Image.Image], Tensor], cut: Callable | None
) -> tuple[Tensor, Tensor | None]:
    """Pixels (T, 3, H, W) of images and None, or, cut into tiles, frames (T, F, 3, H, W) and `tile_ids` (T, F).

    Args:
        prepare: makes pixels (3, H, W) of an image.
        cut: of `tile_cutter`.
    """
    pixels = [prepare(image) for image in images]
    if cut is None:
        return torch.stack(pixels), None
    frames, tile_ids = zip(*map(cut, images, pixels), strict=True)
    return pad_sequence(frames, True), pad_sequence(tile_ids, True, -1)
