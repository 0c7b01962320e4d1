"""Images of a request: data URIs, downloaded files, and their limits."""

import base64
import zlib
from io import BytesIO
from struct import pack

import pytest
from PIL import Image, features

from mmgpt.server.image_urls import ImageDecoder, is_web
from tests.server.conftest import data_uri, image_bytes, image_content, text_content

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


def bomb(width, height):
    """A PNG of black that is far larger than its bytes."""

    def chunk(kind, data):
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    head = pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * 100), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_base64_with_broken_lines_as_mime_encoders_write_it(served):
    data = image_bytes("blue", (40, 40), "BMP")
    part = image_content(f"data:image/bmp;base64,{base64.encodebytes(data).decode()}")
    assert served.ask([part, text_content("what?")]).choices[0].message.content == "what? 1 images"
    assert served.chat.submitted["conversation"].images[0].getpixel((3, 3)) == (0, 0, 255)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow is built without AVIF")
def test_an_avif_is_read_within_the_limits():
    data = image_bytes("blue", (20, 20), "AVIF")
    assert ImageDecoder({}, 400).open(data_uri(data, "image/avif")).getpixel((3, 3)) == pytest.approx(
        (0, 0, 255), abs=5
    )
    with pytest.raises(ValueError, match="too many pixels"):
        ImageDecoder({}, 399).open(data_uri(data))
    offset = data.index(b"ispe") + 8  # of the width and height, which are checked before anything is decoded
    with pytest.raises(ValueError, match="too many pixels"):
        ImageDecoder({}, 10**12).open(data_uri(data[:offset] + pack(">II", 16_000, 16_000) + data[offset + 8 :]))


@pytest.mark.parametrize("url, web", [("http://a", True), ("HTTPS://a", True), ("data:,", False), ("file:///a", False)])
def test_web_urls_are_downloaded(url, web):
    assert is_web(url) == web


def test_images_from_the_request_and_from_the_web():
    images = ImageDecoder({"http://a/b": image_bytes("blue")}, 1000)
    assert images.open(data_uri(image_bytes("red", kind="JPEG"))).getpixel((3, 3))[0] > 250
    assert images.open("http://a/b").getpixel((3, 3)) == (0, 0, 255)


def test_pixels_of_all_images_count():
    images = ImageDecoder({}, 900)
    images.open(data_uri())
    images.open(data_uri())
    with pytest.raises(ValueError, match="too many pixels"):
        images.open(data_uri())


@pytest.mark.parametrize(
    "data, message",
    [
        (SVG, "SVG"), (b"<?xml version='1.0'?>" + SVG, "SVG"), (bomb(30_000, 30_000), "too many pixels"),
        (bomb(10**9, 10**9), "."), (image_bytes()[:50], "."), (b"GIF89a", "."), (b"%PDF-1.4", "not an image"),
        (b"\0", "not an image"), (image_bytes("red", (2000, 1)), "one side"),
    ],
)  # fmt: skip
def test_hostile_images(data, message):
    with pytest.raises(ValueError, match=message):
        ImageDecoder({}, 10**12).open(data_uri(data))


def test_an_empty_image():
    with pytest.raises(ValueError, match="empty"):
        ImageDecoder({}, 1000).open("data:image/png;base64,")


def test_an_animation_is_its_first_frame():
    file = BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    uri = f"data:image/gif;base64,{base64.b64encode(file.getvalue()).decode()}"
    assert ImageDecoder({}, 1000).open(uri).getpixel((0, 0)) == (255, 0, 0)
