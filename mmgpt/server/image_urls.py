"""Images of a chat request: data URIs and downloaded files, decoded to PIL images."""

from collections.abc import Mapping
from dataclasses import replace

from PIL import Image

from mmgpt.datasets.untrusted_images import ImageLimits, open_image
from mmgpt.utils.data_uri import read_data_uri

SCHEMES = ("http://", "https://")


def is_web(url: str) -> bool:
    """Whether a URL has to be downloaded."""
    return url[:8].lower().startswith(SCHEMES)


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
