"""Images of a chat request: data URIs and downloaded files, decoded to PIL images."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import replace

from PIL import Image

from mmgpt.apis.images import ImageLimits, open_image

SCHEMES = ("http://", "https://")
BASE64 = re.compile(r";\s*base64\s*$", re.I)
WHITE_SPACE = str.maketrans("", "", " \t\r\n\f")


def is_web(url: str) -> bool:
    """Whether a URL has to be downloaded."""
    return url[:8].lower().startswith(SCHEMES)


def read_data_uri(url: str) -> bytes:
    """The bytes in ``data:image/...;base64,...`` (RFC 2397). The declared type is ignored, since it may be wrong.

    White space within the base64 is ignored: the tool `base64` and MIME encoders (RFC 2045) break its lines.

    Raises:
        ValueError: the URL is not such a data URI, or its base64 is invalid.
    """
    head, comma, data = url.strip().partition(",")
    if not comma or not head.lower().startswith("data:"):
        raise ValueError("an image must be a data URI: data:image/png;base64,...")
    if not BASE64.search(head):
        raise ValueError("the data URI of an image must be in base64: data:image/png;base64,...")
    try:
        return base64.b64decode(data.translate(WHITE_SPACE), validate=True)
    except (binascii.Error, ValueError) as error:  # b64decode raises ValueError for characters beyond ASCII.
        raise ValueError(f"the base64 of the image is invalid: {error}") from error


class ImageDecoder:
    """Decoder of the images of one request, with a limit on their pixels.

    Args:
        fetched: bytes of the downloaded images, by URL.
        max_pixels: of all images together.
    """

    def __init__(self, fetched: Mapping[str, bytes], max_pixels: int):
        self._fetched, self._pixels_left = fetched, max_pixels

    def open(self, url: str) -> Image.Image:
        """One image, upright and RGB.

        Raises:
            ValueError: the URL does not hold an image that is accepted; a sentence for the user.
        """
        data = self._fetched[url] if is_web(url) else read_data_uri(url)
        limits = ImageLimits()
        image = open_image(data, replace(limits, pixels=min(limits.pixels, self._pixels_left)))
        self._pixels_left -= image.width * image.height
        return image
