"""Images: from files to the pixels that CLIP expects."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from mmgpt.datasets.conversation import place_of
from mmgpt.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImages:
    """Reads the images of a sample: `pil`, a list of RGB images turned upright by their EXIF orientation.

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


def _read(path: Path, results: dict) -> Image.Image:
    if not path.is_file():
        raise FileNotFoundError(f"{place_of(results)}: no image file {str(path)!r}")
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{place_of(results)}: cannot read the image {str(path)!r}: {error}") from error
