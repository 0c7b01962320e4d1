import numpy as np
import pytest
from PIL import Image

from mmgpt.datasets.image_files import check_image_file, is_hidden
from tests.helpers.corrupt_data import encoded, png_of_size


@pytest.fixture
def picture():
    """A picture that does not compress to nothing."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_complete_image_has_no_problem(tmp_path, picture, kind):
    path = tmp_path / "a"
    path.write_bytes(encoded(picture, kind))
    assert check_image_file(str(path)) == (str(path), (64, 48), "", "")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_truncated_image_is_unreadable(tmp_path, picture, kind):
    content = encoded(picture, kind)
    path = tmp_path / "a"
    path.write_bytes(content[: len(content) // 2])
    found = check_image_file(str(path))
    assert (found.problem, found.size) == ("unreadable_image", None)
    assert found.message


def test_complete_image_with_trailing_bytes_has_no_problem(tmp_path, picture):
    (tmp_path / "a").write_bytes(encoded(picture, "JPEG") + b"written by a camera")
    assert not check_image_file(str(tmp_path / "a")).problem
    (tmp_path / "a").write_bytes(encoded(picture, "JPEG") + bytes(40))
    assert not check_image_file(str(tmp_path / "a")).problem


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"<html>404</html>", "cannot identify image file"),
        (png_of_size(20_000, 20_000), "decompression bomb"),
        (png_of_size(10_000, 10_000), "truncated"),
    ],
)
def test_unreadable_files_have_a_message(tmp_path, content, words):
    (tmp_path / "a.png").write_bytes(content)
    found = check_image_file(str(tmp_path / "a.png"))
    assert found.problem == "unreadable_image"
    assert words in found.message


@pytest.mark.parametrize("path", ["._1.jpg", ".cache/1.jpg", "a/.hidden/1.jpg", "__MACOSX/a/1.jpg", "a/._1.txt"])
def test_hidden_files_are_recognized(path):
    assert is_hidden(path)
    assert not is_hidden(path.replace("__MACOSX", "macos").replace("/.", "/").lstrip("."))


def test_missing_files_and_folders_are_problems(tmp_path):
    assert check_image_file(str(tmp_path / "gone.jpg"))[2:] == ("missing_image", "no such file")
    assert check_image_file(str(tmp_path))[2:] == ("unreadable_image", "a folder, not a file")


def test_unusual_properties_are_named(tmp_path, picture):
    turned = Image.Exif()
    turned[0x0112] = 6
    cases = {
        "16 bits a pixel, of which the upper 8 are read": encoded(Image.new("I;16", (64, 48)), "PNG"),
        "numbers of unknown range (mode F), cut off at 255 when read": encoded(Image.new("F", (64, 48)), "TIFF"),
        "transparency, laid on white": encoded(picture.convert("RGBA"), "PNG"),
        "CMYK colors": encoded(picture.convert("CMYK"), "JPEG"),
        "animated, only its first frame is read": encoded(
            picture, "GIF", save_all=True, append_images=[picture.rotate(90)]
        ),
        "turned by its EXIF orientation 6": encoded(picture, "JPEG", exif=turned),
        "1 x 1 pixels": encoded(Image.new("RGB", (1, 1)), "PNG"),
        "20000 x 20 pixels": encoded(Image.new("RGB", (20_000, 20)), "PNG"),
        "10000 x 9000 pixels": encoded(Image.new("1", (10_000, 9_000)), "PNG"),
        "64 x 4 pixels; CMYK colors": encoded(picture.convert("CMYK").crop((0, 0, 64, 4)), "JPEG"),
    }
    for what, content in cases.items():
        (tmp_path / "a").write_bytes(content)
        assert check_image_file(str(tmp_path / "a"))[2:] == ("unusual_image", what)


def test_pixels_of_a_complete_image_are_not_decoded(tmp_path, picture, monkeypatch):
    for kind in ("JPEG", "PNG"):
        turned = Image.Exif()
        turned[0x0112] = 3
        (tmp_path / kind).write_bytes(encoded(picture, kind, exif=turned))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    for kind in ("JPEG", "PNG"):
        assert check_image_file(str(tmp_path / kind)).message == "turned by its EXIF orientation 3"
