"""Pictures that users hand in: read as training reads them, and within limits when they come from strangers."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile

from mmgpt.datasets.transforms import LoadImages
from mmgpt.datasets.transforms.images import upright_rgb

# Pillow is built with libraries for some formats and without others.
FORMATS = ("JPEG", "PNG", *["WEBP"] * features.check("webp"), "GIF", "BMP", *["AVIF"] * features.check("avif"))
PASSES = 40  # how often a JPEG of the most pixels that are accepted may go over them


@dataclass(frozen=True)
class PictureLimits:
    """What `open_picture` accepts.

    Attributes:
        bytes: size of the file.
        pixels: width times height, as the file's header says them.
        formats: Pillow's names of file formats. Only their readers see the data.
        ratio: longer side over shorter side. Resizing to the shorter side would make gigabytes of a long thin line.
    """

    bytes: int = 20 * 2**20
    pixels: int = 40_000_000
    formats: tuple[str, ...] = FORMATS
    ratio: int = 100


def open_picture(data: bytes | str | Path, limits: PictureLimits = PictureLimits()) -> Image.Image:  # noqa: B008 frozen
    """A picture from a stranger, upright and RGB; of an animation the first frame.

    Args:
        data: the bytes of an image file, or the path of one. Nothing else is ever opened.
        limits: what is accepted. Bytes, format and pixels are looked at before anything is decoded.

    Raises:
        FileNotFoundError: `data` is a path where no file is.
        ValueError: one sentence that can be shown to the sender: empty, too large, of another format or damaged.
    """
    if not isinstance(data, bytes):
        data = _read_file(Path(data), limits)
    _check_bytes(len(data), limits)
    if b"<svg" in data[:1024].lower():
        raise ValueError(f"the picture is an SVG drawing: send {_formats(limits)}")
    with _open(data, limits) as image:
        _check_size(image.size, limits)
        _check_scans(image, data, limits)
        try:
            return upright_rgb(image)
        except Exception as error:
            raise _damaged(error) from error


def read_picture(image: str | Path | Image.Image) -> Image.Image:
    """An image file of one's own, or a PIL image, as training reads it: upright and RGB, of any format and size.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a readable image.
    """
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    return LoadImages()({"images": [str(image)]})["pil"][0]


def _read_file(path: Path, limits: PictureLimits) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"no image file {str(path)!r}")
    _check_bytes(path.stat().st_size, limits)
    return path.read_bytes()


def _open(data: bytes, limits: PictureLimits) -> Image.Image:
    try:
        return Image.open(BytesIO(data), formats=limits.formats)
    except UnidentifiedImageError as error:
        raise ValueError(f"the data are no picture that can be read: send {_formats(limits)}") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, as it meets the header
        raise ValueError(_too_many_pixels(limits)) from error
    except Exception as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> ValueError:
    # Of any type: Pillow's plugins raise whatever their reading of a damaged file runs into.
    return ValueError(f"the picture is damaged: {str(error) or type(error).__name__}")


def _check_bytes(size: int, limits: PictureLimits) -> None:
    if size == 0:
        raise ValueError("the picture is empty: it has no bytes")
    if size > limits.bytes:
        raise ValueError(f"the picture has {size} bytes: at most {limits.bytes} are accepted")


def _check_size(size: tuple[int, int], limits: PictureLimits) -> None:
    if size[0] * size[1] > limits.pixels:
        raise ValueError(_too_many_pixels(limits))
    if max(size) > limits.ratio * min(size):
        raise ValueError(f"the picture is {size[0]} x {size[1]} pixels: one side may be {limits.ratio} times the other")


def _check_scans(image: Image.Image, data: bytes, limits: PictureLimits) -> None:
    """Raises a ValueError for a JPEG that goes over its pixels so often that decoding would take minutes or hours.

    A progressive JPEG has about 10 scans; one that is nearly empty takes 60 bytes in the file.
    """
    scans = data.count(b"\xff\xda") if isinstance(image, JpegImageFile) else 1
    if scans * image.width * image.height > PASSES * limits.pixels:
        raise ValueError(f"the picture is a JPEG of {scans} scans: too many for its size")


def _too_many_pixels(limits: PictureLimits) -> str:
    return f"the picture has too many pixels: at most {limits.pixels / 1e6:g} million are accepted"


def _formats(limits: PictureLimits) -> str:
    return f"one of {', '.join(limits.formats)}"
