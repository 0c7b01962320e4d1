"""Images: from files to the pixels that CLIP expects."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from mmgpt.datasets.conversation import place_of
from mmgpt.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImages:
    """Reads the images of a sample: `pil`, a list of images as `upright_rgb` gives them.

    Raises:
        FileNotFoundError: an image does not exist; names it, the annotation file and the record.
        ValueError: a file is no image or cannot be read to its end; names the same.
    """

    def __call__(self, results: dict) -> dict:
        folder = Path(results.get("image_folder", ""))
        results["pil"] = [_read(folder / image, results) for image in results["images"]]
        return results


@TRANSFORMS.register_module()
class PrepareImages:
    """CLIP's preprocessing of `pil`: shorter side to `size`, centre crop, normalisation.

    Gives `pixels`, float32 (T, 3, size, size), or None for a sample without images.

    Args:
        size: side of the square in pixels.
        mean: of the red, green and blue channel (of values from 0 to 1).
        std: likewise.
        interpolation: 'bicubic' (CLIP), 'bilinear' or 'nearest'.
    """

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], interpolation: str = "bicubic"):
        modes = {mode.value: mode for mode in InterpolationMode}
        if interpolation not in modes:
            raise ValueError(f"unknown interpolation {interpolation!r}: choose among {', '.join(modes)}")
        resize = Resize(size, interpolation=modes[interpolation])
        self.prepare = Compose([resize, CenterCrop(size), ToTensor(), Normalize(mean, std)])

    def __call__(self, results: dict) -> dict:
        images = results.get("pil")
        results["pixels"] = torch.stack([self.prepare(image) for image in images]) if images else None
        return results

    def restore(self, pixels: torch.Tensor) -> torch.Tensor:
        """The pictures that normalised `pixels` (T, 3, H, W) are of: uint8 (T, H, W, 3)."""
        normalize = self.prepare.transforms[-1]
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalize.mean, normalize.std))
        return (pixels.float() * std + mean).mul(255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image in RGB, 8 bits a channel, turned upright by its EXIF orientation.

    Of 16-bit greyscale the upper 8 bits are kept, as Pillow keeps them of 16-bit colour; its own conversion would make
    nearly all of it white. Transparency is left out, and of an animation all but the first frame.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _read(path: Path, results: dict) -> Image.Image:
    if not path.is_file():
        raise FileNotFoundError(f"{place_of(results)}: no image file {str(path)!r}")
    try:
        with Image.open(path) as image:
            return upright_rgb(image)
    # Pillow's plugins raise whatever their reading of a damaged file runs into.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{place_of(results)}: cannot read the image {str(path)!r}: {reason}") from error
