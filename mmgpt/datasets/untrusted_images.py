"""Images from untrusted senders: read in the same way as in training, within limits."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile

from .transforms.images import upright_rgb

# Pillow is built with libraries for some formats and without others.
FORMATS = ("JPEG", "PNG", *["WEBP"] * features.check("webp"), "GIF", "BMP", *["AVIF"] * features.check("avif"))
MAX_JPEG_SCANS = 40  # A JPEG with the largest accepted number of pixels may have so many; a smaller one may have more.


@dataclass(frozen=True)
class ImageLimits:
    """Limits of the images that `open_image` accepts.

    Attributes:
        bytes: size of the file.
        pixels: width times height, by the file's header.
        formats: Pillow's names of file formats. Only their readers see the data.
        ratio: longer side over shorter side. Resizing the shorter side of a long thin line would make gigabytes of it.
    """

    bytes: int = 20 * 2**20
    pixels: int = 40_000_000
    formats: tuple[str, ...] = FORMATS
    ratio: int = 100


def open_image(data: bytes | str | Path, limits: ImageLimits = ImageLimits()) -> Image.Image:  # noqa: B008 (frozen)
    """Image from an untrusted sender, upright and RGB; of an animation the first frame.

    Args:
        data: the bytes of an image file, or the path of one. Nothing else is ever opened.
        limits: of what is accepted. Bytes, format and pixels are checked before anything is decoded.

    Raises:
        FileNotFoundError: `data` is a path, and there is no file.
        ValueError: the image is empty, too large, damaged or of another format; one sentence to show to the sender.
    """
    # 1. The bytes.
    if not isinstance(data, bytes):
        path = Path(data)
        if not path.is_file():
            raise FileNotFoundError(f"no image file {str(path)!r}")
        _check_bytes(path.stat().st_size, limits)
        data = path.read_bytes()
    _check_bytes(len(data), limits)
    # 2. The header: format and size.
    accepted = f"send one of {', '.join(limits.formats)}"
    too_many_pixels = f"the image has too many pixels: at most {limits.pixels / 1e6:g} million are accepted"
    if b"<svg" in data[:1024].lower():
        raise ValueError(f"the image is an SVG drawing: {accepted}")
    try:
        file = Image.open(BytesIO(data), formats=limits.formats)
    except UnidentifiedImageError as error:
        raise ValueError(f"the data are not an image that can be read: {accepted}") from error
    except Image.DecompressionBombError as error:  # Pillow has a limit of its own, which it checks in the header.
        raise ValueError(too_many_pixels) from error
    except Exception as error:
        raise _damaged(error) from error
    with file:
        width, height = file.size
        if width * height > limits.pixels:
            raise ValueError(too_many_pixels)
        if max(file.size) > limits.ratio * min(file.size):
            raise ValueError(f"the image is {width} x {height} pixels: one side may be {limits.ratio} times the other")
        # A progressive JPEG has about 10 scans. A nearly empty scan takes 60 bytes in the file, but decoding goes over
        # all pixels for it, so that a small file could take hours.
        scans = data.count(b"\xff\xda") if isinstance(file, JpegImageFile) else 1
        if scans * width * height > MAX_JPEG_SCANS * limits.pixels:
            raise ValueError(f"the image is a JPEG of {scans} scans: too many for its size")
        # 3. The pixels.
        try:
            return upright_rgb(file)
        except Exception as error:
            raise _damaged(error) from error


def _check_bytes(size: int, limits: ImageLimits) -> None:
    if size == 0:
        raise ValueError("the image is empty: it has no bytes")
    if size > limits.bytes:
        raise ValueError(f"the image has {size} bytes: at most {limits.bytes} are accepted")


def _damaged(error: Exception) -> ValueError:
    # The error may be of any type: Pillow's plugins raise whatever they run into in a damaged file.
    return ValueError(f"the image is damaged: {str(error) or type(error).__name__}")
