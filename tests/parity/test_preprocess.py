"""Pixels of the published code, bit for bit, and where ours differ on purpose."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmgpt.apis.inputs import read_image
from mmgpt.datasets.instruction import build_pipeline
from tests.helpers.parity_data import PARITY

PICTURES = sorted(path.name for path in PARITY.glob("images/*"))
ORIENTATION = 0x0112  # the EXIF tag


def is_turned(name):
    with Image.open(PARITY / "images" / name) as image:
        return image.getexif().get(ORIENTATION, 1) != 1


TURNED = [name for name in PICTURES if is_turned(name)]
WIDE = "gray16.png"  # 16 bits a pixel
TRANSPARENT = "rgba.png"


@pytest.fixture(scope="module")
def published():
    return dict(np.load(PARITY / "expected" / "preprocess.npz"))


@pytest.fixture(scope="module")
def prepare(pipelines):
    """From an image file, or a picture in memory as in chat, to pixels, by the steps of the config."""
    load, resize = build_pipeline(pipelines.image_steps)

    def pixels(image):
        sample = {"pil": [image]} if isinstance(image, Image.Image) else load({"images": [str(image)]})
        return resize(sample)["pixels"][0].numpy()

    return pixels


def of_datasets(published, name):
    """What the published datasets made of a file: RGB first, stored only where that matters."""
    return published.get(f"rgb_first/{name}", published[f"direct/{name}"])


@pytest.mark.parametrize("name", [name for name in PICTURES if name not in (*TURNED, WIDE, TRANSPARENT)])
def test_a_picture(prepare, published, name):
    assert np.array_equal(prepare(PARITY / "images" / name), of_datasets(published, name))


@pytest.mark.parametrize("name", PICTURES)
def test_chat_sees_a_picture_as_training_does(prepare, name):
    """The published demo left out the conversion to RGB."""
    path = PARITY / "images" / name
    expected = prepare(path)
    with Image.open(path) as image:
        assert np.array_equal(prepare(read_image(image)), expected)
    assert np.array_equal(prepare(read_image(path)), expected)


def test_the_demos_other_modes_are_those_we_convert_first(prepare, published):
    for name in (key.removeprefix("rgb_first/") for key in published if key.startswith("rgb_first/")):
        assert not np.array_equal(prepare(PARITY / "images" / name), published[f"direct/{name}"])


def test_a_picture_of_16_bits_keeps_its_upper_8(prepare, published, tmp_path):
    """The published code cut it off at 255, which made nearly all of it white."""
    with Image.open(PARITY / "images" / WIDE) as image:
        Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).save(tmp_path / "upper.png")
    assert np.array_equal(prepare(PARITY / "images" / WIDE), prepare(tmp_path / "upper.png"))
    assert np.median(of_datasets(published, WIDE)[0]) > 1.9


def test_transparent_pixels_are_white(prepare, published, tmp_path):
    """The published code dropped the alpha channel and showed whatever colour was stored under it."""
    with Image.open(PARITY / "images" / TRANSPARENT) as image:
        colours, alpha = (
            np.asarray(image.convert("RGB"), float),
            np.asarray(image.getchannel("A"), float)[..., None] / 255,
        )
        image.convert("RGB").save(tmp_path / "dropped.png")
    Image.fromarray(np.rint(colours * alpha + 255 * (1 - alpha)).astype(np.uint8)).save(tmp_path / "white.png")
    assert np.abs(prepare(PARITY / "images" / TRANSPARENT) - prepare(tmp_path / "white.png")).max() < 0.05
    assert np.array_equal(prepare(tmp_path / "dropped.png"), of_datasets(published, TRANSPARENT))


@pytest.mark.parametrize("name", TURNED)
def test_a_turned_picture_without_its_orientation(prepare, published, name, tmp_path):
    with Image.open(PARITY / "images" / name) as image:
        Image.fromarray(np.asarray(image)).save(tmp_path / "pixels.png")
    assert np.array_equal(prepare(tmp_path / "pixels.png"), of_datasets(published, name))


@pytest.mark.parametrize("name", TURNED)
def test_a_turned_picture_is_upright(prepare, published, name, tmp_path):
    """The published code showed it to the model as the camera held it."""
    with Image.open(PARITY / "images" / name) as image:
        ImageOps.exif_transpose(image).save(tmp_path / "upright.png", exif=b"")
    pixels = prepare(PARITY / "images" / name)
    assert np.array_equal(pixels, prepare(tmp_path / "upright.png"))
    assert not np.array_equal(pixels, of_datasets(published, name))
