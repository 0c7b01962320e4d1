"""Preprocessing of images, and the reading of their pixels."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from PIL import ExifTags, Image

from mmgpt.models.tiles import tile_places
from mmgpt.models.vision.preprocessing import changed_settings, image_preprocessing, image_transform, normalization
from mmgpt.registry import TRANSFORMS
from mmgpt.utils.errors import SampleError, SampleLocation

from .pixels import clip_preprocessing, interpolation_mode, prepare_images, tile_cutter

# The transposition that turns an image of each EXIF orientation upright (EXIF 2.32, tag 0x0112).
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@TRANSFORMS.register_module()
class PrepareImages:
    """Preprocessing of `pil`: with `preprocessing` an image encoder's own, otherwise CLIP's with the given values.

    CLIP's is resizing of the shorter side to `size`, center crop, normalization. Adds `pixels`, float32 (T, 3, H, W),
    or None for a sample without images.

    With `tiles`, an image with more pixels than the image encoder takes becomes several frames: `pixels` are
    (T, F, 3, H, W), the whole image and its tiles, and `tile_ids` int64 (T, F) their places (see `mmgpt.models.tiles`).

    Args:
        size: side of the square in pixels; an image encoder's own preprocessing has its own.
        mean: mean of the red, green and blue channel (of values from 0 to 1).
        std: standard deviation of the same values.
        interpolation: 'bicubic' (CLIP, the default), 'bilinear' or 'nearest'.
        preprocessing: config of an image encoder, whose library says how its images are prepared, or these settings
            (see `mmgpt.models.vision.preprocessing`). `mean`, `std` and `interpolation` take the place of its values.
        resize_mode: 'shortest' (resizing of the shorter side and center crop, the default), 'longest' (of the longer
            side, with black borders) or 'squash' (to the square, whatever the aspect ratio is).
        tiles: arguments `max` and `resize_mode` of `tile_cutter`, e.g. dict(max=6); None, or a max of 1: no tiles.

    Raises:
        ValueError: an unknown interpolation or resize mode; `size` or `resize_mode` with `preprocessing`, or one of
            `size`, `mean` and `std` missing without it; settings that the library or `tile_cutter` does not know.
    """

    def __init__(
        self,
        size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        interpolation: str | None = None,
        preprocessing: Mapping | None = None,
        resize_mode: str | None = None,
        tiles: Mapping | None = None,
    ):
        values = dict(size=size, mean=mean, std=std)
        if preprocessing is None:
            missing = [name for name, value in values.items() if value is None]
            if missing:
                raise ValueError(f"PrepareImages needs {', '.join(missing)}, or preprocessing")
            self.prepare = clip_preprocessing(size, mean, std, interpolation or "bicubic", resize_mode or "shortest")
            self.mean, self.std = mean, std
        else:
            interpolation_mode(interpolation or "bicubic")
            if size is not None or resize_mode is not None:
                given = f"size={size}" if resize_mode is None else f"resize_mode={resize_mode!r}"
                raise ValueError(
                    f"PrepareImages: {given} beside preprocessing, which has its own. In a config that inherits values "
                    "of mean and std, replace them all: dict(_delete_=True, type='PrepareImages', preprocessing=...)"
                )
            settings = image_preprocessing(preprocessing) if "type" in preprocessing else preprocessing
            settings = changed_settings(settings, mean, std, interpolation)
            self.prepare, (self.mean, self.std) = image_transform(settings), normalization(settings)
        try:
            cutter = partial(tile_cutter, self.mean, self.std, interpolation or "bicubic")
            self.cut = None if tiles is None else cutter(**tiles)
        except TypeError as error:
            raise ValueError(f"PrepareImages: tiles={tiles} must be a dict of max and perhaps resize_mode") from error
        self.places = len(tile_places(tiles["max"])) if self.cut else 0

    def __call__(self, results: dict) -> dict:
        images = results.get("pil")
        pixels = prepare_images(images, self.prepare, self.cut) if images else (None, None)
        results["pixels"], results["tile_ids"] = pixels
        return results

    def restore(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images, uint8 (..., H, W, 3), from normalized `pixels` (..., 3, H, W)."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels.float() * std + mean).mul(255).round().clamp(0, 255).byte().movedim(-3, -1)


def prepared_size(step: Mapping) -> tuple[int, int]:
    """Height and width of the images that come out of PrepareImages with this config."""
    pixels = TRANSFORMS.build(step)({"pil": [Image.new("RGB", (8, 8))]})["pixels"]
    return tuple(pixels.shape[-2:])


@TRANSFORMS.register_module()
class EachImage:
    """Image transforms of mmcv or mmpretrain, applied to each image in `pil`, between LoadImages and PrepareImages.

    A transform gets one image at a time, as it does in those packages: a dict with `img`, uint8 (H, W, 3) with the
    channels in the order blue, green, red, with its (H, W) as `img_shape` and `ori_shape`, and with `img_path`.

    What the transforms draw from the global generators of numpy, Python and torch depends on the sample's `rng` alone.
    The states of these generators stay as they were.

    Args:
        transforms: their configs, e.g. `dict(type="mmcv.RandomFlip", prob=0.5)`.

    Raises:
        SampleError: a transform returns no image, or an image of another dtype or number of channels.
    """

    def __init__(self, transforms: Sequence[dict]):
        self.transforms = [TRANSFORMS.build(transform) for transform in transforms]

    def __call__(self, results: dict) -> dict:
        # A chat, whose samples have no generator, transforms every image in the same way. Spawning leaves the draws of
        # later transforms as they are, so that texts are the same when images are not opened.
        [rng] = (results.get("rng") or np.random.default_rng(0)).spawn(1)
        images = []
        with _global_seed(int(rng.integers(2**32))):
            for image, path in zip(results["pil"], results["images"], strict=True):
                shape = (image.height, image.width)
                pixels = np.ascontiguousarray(np.asarray(image)[..., ::-1])
                inputs = {"img": pixels, "img_shape": shape, "ori_shape": shape, "img_path": path}
                for transform in self.transforms:
                    inputs = transform(inputs)
                    pixels = None if inputs is None else inputs.get("img")
                    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[2:] != (3,):
                        is_array = isinstance(pixels, np.ndarray)
                        kind = f"{pixels.dtype} {pixels.shape}" if is_array else type(pixels).__name__
                        reason = f"{type(transform).__name__} gives {kind} as `img`, not uint8 (H, W, 3)"
                        raise SampleError(reason, SampleLocation.of(results, image=path))
                images.append(Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])))
        results["pil"] = images
        return results


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Context manager that seeds the global generators of numpy, Python and torch, and restores their states."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        np.random.seed(seed)
        random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Image in RGB with 8 bits per channel, turned upright by its EXIF orientation, on a white background.

    The upper 8 bits of 16-bit grayscale are used, as Pillow does for 16-bit color; Pillow's conversion would make
    nearly all of it white. Only the first frame of an animation is read. Apart from the orientation, metadata is
    ignored, so that damaged metadata does no harm.
    """
    # 1. Turn the image upright.
    image.load()
    turn = UPRIGHT.get(exif_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
        # The orientation, of which there may be several copies, no longer holds.
        image.info = {key: value for key, value in image.info.items() if key == "transparency"}
    is_16_bit = image.mode.startswith("I;16")
    if not image.has_transparency_data:
        return (_upper_bits(image) if is_16_bit else image).convert("RGB")
    # 2. Lay an image with an alpha channel or a transparent color on white, as a browser does.
    color = image.info.get("transparency")
    if is_16_bit:
        alpha = np.where(np.asarray(image) == color, 0, 255).astype(np.uint8)
        image = Image.merge("LA", (_upper_bits(image), Image.fromarray(alpha)))
    elif isinstance(color, tuple) and max(color) > 255:
        # The transparent color of a 16-bit PNG has 16 bits, while Pillow has brought the pixels to 8 bits.
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in color)
    image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def exif_orientation(image: Image.Image) -> int:
    """EXIF orientation of an image, 1 (upright) where it has none that can be read.

    ImageOps.exif_transpose is not used because it writes all tags back, which fails for many tags of cameras.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    # Pillow raises errors of any type for damaged tags.
    except Exception:
        return 1
    return orientation if orientation in UPRIGHT else 1


def _upper_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
