"""Images from untrusted senders: accepted formats, limits, and error messages."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageSequence

from mmgpt.datasets.untrusted_images import ImageLimits, open_image


def encoded(image, format, **options):
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *extra):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ImageLimits().formats)
def test_every_accepted_format_is_read(format):
    image = open_image(encoded(Image.new("RGB", (40, 30), "red"), format))
    assert (image.mode, image.size) == ("RGB", (40, 30))
    red, green, blue = image.getpixel((20, 15))
    assert red > 240
    assert green < 10
    assert blue < 10


def test_cmyk_sixteen_bits_and_transparency_become_rgb():
    assert open_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).getpixel((4, 4))[0] > 200
    grey = Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert open_image(encoded(grey, "PNG")).getpixel((0, 0)) == (128, 128, 128)
    assert open_image(encoded(Image.new("RGBA", (4, 4), (0, 0, 255, 0)), "PNG")).getpixel((0, 0)) == (255,) * 3


def test_a_photograph_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned
    assert open_image(encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif)).size == (20, 40)


def test_only_the_first_frame_of_an_animation_is_decoded(monkeypatch):
    frames = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(200)]
    data = encoded(frames[9], "GIF", save_all=True, append_images=frames[10:])
    assert len(list(ImageSequence.Iterator(Image.open(BytesIO(data))))) > 100
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile.seek", lambda *_: pytest.fail("looked for another frame"))
    assert open_image(data).getpixel((0, 0)) == (9, 0, 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the image is empty"),
        (b"hello" * 100, "not an image that can be read: send one of JPEG, PNG, WEBP, GIF, BMP"),
        (b"/etc/hostname", "not an image that can be read"),
        (b'<?xml version="1.0"?>\n<SVG xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing: send one of JPEG"),
        (encoded(Image.new("RGB", (8, 8)), "TIFF"), "not an image that can be read: send one of JPEG"),
        (encoded(Image.new("RGB", (8, 8)), "ICO"), "not an image that can be read"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:-600], "the image is damaged: .*truncated"),
        (encoded(Image.effect_noise((64, 64), 50), "PNG")[:-900], "the image is damaged"),
        (png(50_000, 50_000), "too many pixels: at most 40 million"),
        (png(7_000, 7_000), "too many pixels: at most 40 million"),
        (png(8, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 50_000_000))), "the image is damaged"),
        (png(8, 8, chunk(b"iCCP", b"k\0\0" + zlib.compress(b"a" * 50_000_000))), "the image is damaged"),
        (encoded(Image.new("L", (20_000, 2)), "PNG"), "20000 x 2 pixels: one side may be 100 times"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
def test_invalid_images_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        open_image(data)


def test_pixels_are_counted_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="too many pixels"):
        open_image(encoded(Image.new("L", (7_000, 7_000)), "PNG"))


def test_a_jpeg_of_too_many_scans_is_refused():
    data = encoded(Image.new("RGB", (2_000, 2_000)), "JPEG", progressive=True)
    assert open_image(data).size == (2_000, 2_000)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    with pytest.raises(ValueError, match="a JPEG of 410 scans: too many"):
        open_image(data[:end] + data[last:end] * 400 + data[end:])


def test_limits_can_be_set():
    red = encoded(Image.new("RGB", (40, 30), "red"), "PNG")
    for limits, message in (
        (ImageLimits(bytes=len(red) - 1), f"the image has {len(red)} bytes: at most {len(red) - 1}"),
        (ImageLimits(pixels=1199), "too many pixels: at most 0.001199 million"),
        (ImageLimits(formats=("JPEG",)), "send one of JPEG$"),
        (ImageLimits(ratio=1), "40 x 30 pixels: one side may be 1 times"),
    ):
        with pytest.raises(ValueError, match=message):
            open_image(red, limits)
    assert open_image(red, ImageLimits(len(red), 1200, ("PNG",), 2)).size == (40, 30)


def test_a_path_is_read_within_the_same_limits(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 30), "red").save(path)
    assert open_image(path).size == open_image(str(path)).size == (40, 30)
    with pytest.raises(FileNotFoundError, match="no image file .*missing.png"):
        open_image(tmp_path / "missing.png")
    with pytest.raises(FileNotFoundError, match="/dev/zero"):
        open_image("/dev/zero")
    with open(path, "r+b") as file:
        file.truncate(2**40)  # sparse: reading it would end the process
    with pytest.raises(ValueError, match="bytes: at most 20971520"):
        open_image(path)
