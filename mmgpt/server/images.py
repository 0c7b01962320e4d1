"""Pictures of a request: data URIs, and what was fetched, to PIL images."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import replace

from PIL import Image

from mmgpt.apis.pictures import PictureLimits, open_picture

SCHEMES = ("http://", "https://")
BASE64 = re.compile(r";\s*base64\s*$", re.I)
WHITE_SPACE = str.maketrans("", "", " \t\r\n\f")


def is_web(url: str) -> bool:
    """Whether a URL names something to fetch."""
    return url[:8].lower().startswith(SCHEMES)


def read_data_uri(url: str) -> bytes:
    """The bytes in ``data:image/...;base64,...`` (RFC 2397). The type it claims is not believed, so it is not read.

    White space within the base64 is passed over, for the tool `base64` and MIME encoders (RFC 2045) break its lines.

    Raises:
        ValueError: it is something else, or the base64 is invalid.
    """
    head, comma, data = url.strip().partition(",")
    if not comma or not head.lower().startswith("data:"):
        raise ValueError("a picture is given as a data URI: data:image/png;base64,...")
    if not BASE64.search(head):
        raise ValueError("the data URI of a picture must be in base64: data:image/png;base64,...")
    try:
        return base64.b64decode(data.translate(WHITE_SPACE), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: characters beyond ASCII
        raise ValueError(f"the base64 of the picture is invalid: {error}") from error


class Pictures:
    """Opens the pictures of one request, and keeps count of their pixels.

    Args:
        fetched: the bytes of those that are not in the request itself, by URL.
        max_pixels: of all of them together.
    """

    def __init__(self, fetched: Mapping[str, bytes], max_pixels: int):
        self._fetched, self._left = fetched, max_pixels

    def open(self, url: str) -> Image.Image:
        """One picture, upright and RGB.

        Raises:
            ValueError: it is none, or one that is not accepted; a sentence for the user.
        """
        data = self._fetched[url] if is_web(url) else read_data_uri(url)
        limits = PictureLimits()
        image = open_picture(data, replace(limits, pixels=min(limits.pixels, self._left)))
        self._left -= image.width * image.height
        return image
