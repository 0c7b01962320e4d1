import base64
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mmgpt.datasets.transforms import LoadImages, PrepareImages
from mmgpt.datasets.transforms.images import upright_rgb
from mmgpt.utils.errors import SampleError
from tests.helpers.corrupt_data import READ, encoded, write_corrupt_images

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


def load(folder, *names):
    record = {"dataset": "d", "file": "ann.json", "record": 4, "id": "x", "image_folder": folder, "images": list(names)}
    return LoadImages()(record)["pil"]


def noise(mode, size=(30, 20)):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(values, "RGBA").convert("RGB").convert(mode) if mode != "RGBA" else Image.fromarray(values)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    noise(mode).save(tmp_path / "a.png")
    [image] = load(tmp_path, "a.png")
    assert image.mode == "RGB"
    assert image.size == (30, 20)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise("RGB").save(tmp_path / "a.jpg", exif=exif)
    assert load(tmp_path, "a.jpg")[0].size == (20, 30)


@pytest.mark.parametrize("orientation", range(10))
def test_orientations_equal_those_of_pillow(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise("RGB").save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = ImageOps.exif_transpose(image)
    [image] = load(tmp_path, "a.png")
    assert np.array_equal(np.asarray(image), np.asarray(expected))
    assert np.array_equal(np.asarray(upright_rgb(image)), np.asarray(expected))


def test_metadata_that_cannot_be_written_back_does_not_matter(tmp_path):
    """The EXIF data of a camera: an orientation, and a maker note whose tag does not have the type of its value."""
    maker = b"MM\0*\0\0\0\x08\0\x02" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\xc6\x12\0\x02\xff\xff\xff\xff\0\0\0\0"
    noise("RGB").save(tmp_path / "a.jpg", exif=b"Exif\0\0" + maker + bytes(4))
    noise("RGB").save(tmp_path / "b.jpg", exif=b"Exif\0\0" + b"no TIFF header")
    assert [image.size for image in load(tmp_path, "a.jpg", "b.jpg")] == [(20, 30), (30, 20)]


def on_white(values, alpha):
    return np.rint(values * (alpha / 255) + 255 * (1 - alpha / 255))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_alpha_is_laid_on_white(mode):
    values = np.full((16, 16, 4), 40, np.uint8)
    values[..., 3] = np.arange(256).reshape(16, 16)
    image = Image.fromarray(values)
    image = image.convert("LA").convert(mode) if mode == "La" else image.convert(mode)
    pixels = np.asarray(upright_rgb(image), int)
    # Premultiplied colours (RGBa, La) are rounded where alpha is small.
    assert np.abs(pixels - on_white(40, values[..., 3:].astype(float))).max() <= (8 if "a" in mode else 1)


@pytest.mark.parametrize(
    ("image", "transparent"),
    [
        (Image.new("RGB", (4, 4), (9, 8, 7)), (9, 8, 7)),
        (Image.new("L", (4, 4), 9), 9),
        (Image.new("RGB", (4, 4), (9, 8, 7)).quantize(), 0),
        (Image.new("RGB", (4, 4), (9, 8, 7)).quantize(), b"\0"),
        (Image.new("1", (4, 4), 0), 0),
        (Image.new("I;16", (4, 4), 900), 900),
    ],
)
def test_transparent_color_is_white(image, transparent):
    for kind in ("PNG", "GIF") if image.mode == "P" and isinstance(transparent, int) else ("PNG",):
        with Image.open(BytesIO(encoded(image, kind, transparency=transparent))) as opened:
            assert np.unique(np.asarray(upright_rgb(opened))).tolist() == [255]
    # Another colour, or an opaque image, stays.
    with Image.open(BytesIO(encoded(image, "PNG"))) as opened:
        assert np.asarray(upright_rgb(opened)).max() < 255


def test_an_opaque_alpha_channel_changes_nothing():
    image = noise("RGB")
    opaque = image.convert("RGBA")
    assert np.array_equal(np.asarray(upright_rgb(opaque)), np.asarray(image))


@pytest.mark.parametrize("name", READ)
def test_corrupt_images_are_read_or_named(tmp_path, name):
    """Each is the right picture, of one colour, or an error that names file and record."""
    write_corrupt_images(tmp_path / "images")
    if isinstance(READ[name], str):
        with pytest.raises((ValueError, FileNotFoundError), match=f"'ann.json', record 4.*{READ[name]}") as raised:
            load(tmp_path / "images", name)
        assert name in str(raised.value)
        return
    [image] = load(tmp_path / "images", name)
    size, colour = READ[name]
    assert image.mode == "RGB"
    assert image.size == size
    assert np.abs(np.asarray(image, int) - colour).max() <= 2


def test_16_bits_in_either_order_of_bytes(tmp_path):
    values = (np.arange(0x10000, dtype=np.uint16)[::-1]).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values.astype(">u2")).save(tmp_path / "a.tif")
    for image in load(tmp_path, "a.png", "a.tif"):
        assert np.array_equal(np.asarray(image)[..., 1], values >> 8)


def test_missing_image_names_file_and_record(tmp_path):
    with pytest.raises(FileNotFoundError, match="'ann.json', record 4, id 'x', image '.*absent.jpg': no such file"):
        load(tmp_path, "absent.jpg")


@pytest.mark.parametrize("kind", ["truncated", "text", "empty"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp"])
def test_unreadable_image_names_file_and_record(tmp_path, kind, suffix):
    path = tmp_path / f"a.{suffix}"
    noise("RGB").save(path)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"no image", "empty": b""}[kind])
    with pytest.raises(ValueError, match=rf"'ann.json', record 4, id 'x', image '.*a.{suffix}': cannot be read"):
        load(tmp_path, path.name)


def test_a_data_uri_is_read_within_limits():
    image = noise("RGB")
    uri = f"data:image/png;base64,{base64.b64encode(encoded(image, 'PNG')).decode()}"
    assert load("anywhere", uri, uri)[1].tobytes() == image.tobytes()
    strip = f"data:image/png;base64,{base64.b64encode(encoded(Image.new('L', (2000, 2)), 'PNG')).decode()}"
    with pytest.raises(SampleError, match=r"image 'data:.*characters\)': cannot be read: the image is 2000 x 2 pixels"):
        load("anywhere", strip)
    with pytest.raises(SampleError, match="cannot be read: the data URI of an image must be in base64"):
        load("anywhere", "data:image/png,abc")


def test_pixels_equal_those_of_clip():
    open_clip = pytest.importorskip("open_clip.transform")
    expected = open_clip.image_transform(24, is_train=False, mean=MEAN, std=STD)
    images = [noise("RGB", size) for size in ((30, 40), (100, 37), (10, 12))]
    pixels = PrepareImages(24, MEAN, STD)({"pil": images})["pixels"]
    assert pixels.shape == (3, 3, 24, 24)
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, torch.stack([expected(image) for image in images]))


def test_restore_inverts_normalization():
    picture = noise("RGB", (24, 24))
    prepare = PrepareImages(24, MEAN, STD)
    restored = prepare.restore(prepare({"pil": [picture, picture.rotate(90)]})["pixels"])
    assert restored.shape == (2, 24, 24, 3)
    assert restored.dtype == torch.uint8
    assert np.array_equal(restored[0].numpy(), np.asarray(picture))
    assert np.array_equal(restored[1].numpy(), np.asarray(picture.rotate(90)))
    # Padding and blacked-out images are zeros: the mean colour; what lies beyond white stays white.
    assert prepare.restore(torch.zeros(1, 3, 1, 1)).flatten().tolist() == [128, 102, 76]
    assert prepare.restore(torch.full((1, 3, 1, 1), 99.0)).flatten().tolist() == [255] * 3


def test_no_images_no_pixels():
    assert PrepareImages(24, MEAN, STD)({"pil": []})["pixels"] is None


def test_interpolation():
    image = noise("RGB", (8, 8))
    nearest = PrepareImages(16, [0] * 3, [1] * 3, "nearest")({"pil": [image]})["pixels"][0]
    assert torch.equal(nearest[:, ::2, ::2], nearest[:, 1::2, 1::2])
    with pytest.raises(ValueError, match="unknown interpolation 'cubic': choose among nearest"):
        PrepareImages(16, MEAN, STD, "cubic")
