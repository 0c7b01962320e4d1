"""Corrupt and unusual image files, for tests of the checker and of training."""

import io
import struct
import zlib

from PIL import Image

SIZE = (32, 24)
RED, BLUE = (254, 0, 0), (0, 0, 254)


def encoded(image, kind, **options):
    """Bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_of_size(width, height):
    """A PNG without pixels that claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for name, data in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


def quarter_turn():
    """EXIF data with an orientation of a quarter turn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def transparent():
    """Blue image that is fully transparent, so that it reads as white."""
    image = Image.new("RGBA", SIZE, BLUE)
    image.putalpha(0)
    return image


def write_corrupt_images(folder):
    """Writes the files into a new folder."""
    red, blue = Image.new("RGB", SIZE, RED), Image.new("RGB", SIZE, BLUE)
    files = {
        "truncated.jpg": encoded(Image.effect_noise(SIZE, 90), "JPEG")[:-200],
        "wide.png": encoded(Image.new("I;16", SIZE, 0x8040), "PNG"),
        "cmyk.jpg": encoded(red.convert("CMYK"), "JPEG"),
        "animated.gif": encoded(red, "GIF", save_all=True, append_images=[blue]),
        "turned.jpg": encoded(red, "JPEG", exif=quarter_turn()),
        "glass.png": encoded(transparent(), "PNG"),
        "pixel.png": encoded(red.crop((0, 0, 1, 1)), "PNG"),
        "strip.png": encoded(red.resize((20_000, 20)), "PNG"),
        "empty.png": b"",
        "bomb.png": png_of_size(50_000, 50_000),
        "good.png": encoded(red, "PNG"),
    }
    folder.mkdir()
    (folder / "folder.png").mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


# Finding of the checker for each file: kind, and part of the value.
FOUND = {
    "truncated.jpg": ("unreadable_image", "truncated"),
    "wide.png": ("unusual_image", "16 bits a pixel, of which the upper 8 are read"),
    "cmyk.jpg": ("unusual_image", "CMYK colors"),
    "animated.gif": ("unusual_image", "animated, only its first frame is read"),
    "turned.jpg": ("unusual_image", "turned by its EXIF orientation 6"),
    "glass.png": ("unusual_image", "transparency, laid on white"),
    "pixel.png": ("unusual_image", "1 x 1 pixels"),
    "strip.png": ("unusual_image", "20000 x 20 pixels"),
    "empty.png": ("unreadable_image", "an empty file"),
    "bomb.png": ("unreadable_image", "decompression bomb"),
    "folder.png": ("unreadable_image", "a folder, not a file"),
    "gone.png": ("missing_image", "no such file"),
}
# Result of reading each file in training: part of the error, or size and color of the image.
READ = {
    "truncated.jpg": "truncated",
    "wide.png": (SIZE, (0x80, 0x80, 0x80)),
    "cmyk.jpg": (SIZE, RED),
    "animated.gif": (SIZE, RED),
    "turned.jpg": (SIZE[::-1], RED),
    "glass.png": (SIZE, (255, 255, 255)),
    "pixel.png": ((1, 1), RED),
    "strip.png": ((20_000, 20), RED),
    "empty.png": "cannot identify image file",
    "bomb.png": "decompression bomb",
    "folder.png": "no such file",
    "gone.png": "no such file",
}
