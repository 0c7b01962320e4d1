"""Resizing of images, and cutting into tiles."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmgpt.datasets.transforms import PrepareImages
from mmgpt.models.tiles import tile_places

ALONE = dict(mean=[0] * 3, std=[1] * 3, interpolation="nearest")


def columns(width, height):
    """An image whose red channel is the number of the column and whose green one that of the row."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 255)], axis=2).astype(np.uint8))


def prepared(image, **settings):
    """Pixels as whole numbers, and `tile_ids`."""
    results = PrepareImages(8, **ALONE, **settings)({"pil": [image]})
    return results["pixels"][0].mul(255).round().int(), results["tile_ids"]


def test_resize_modes():
    image = columns(32, 16)
    cropped, _ = prepared(image)
    assert cropped[0, 0].tolist() == [9, 11, 13, 15, 17, 19, 21, 23]
    assert torch.equal(prepared(image, resize_mode="shortest")[0], cropped)
    letterboxed, _ = prepared(image, resize_mode="longest")
    assert letterboxed[0, 4].tolist() == [2, 6, 10, 14, 18, 22, 26, 30]
    assert letterboxed[2].any(dim=1).tolist() == [False] * 2 + [True] * 4 + [False] * 2
    squashed, _ = prepared(image, resize_mode="squash")
    assert squashed[0, 0].tolist() == [2, 6, 10, 14, 18, 22, 26, 30]
    assert squashed[1, :, 0].tolist() == [1, 3, 5, 7, 9, 11, 13, 15]


def test_letterboxing_and_plain_resizing_equal_those_of_open_clip():
    transform = pytest.importorskip("open_clip.transform")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    values = dict(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    for mode in ("longest", "squash"):
        settings = transform.PreprocessCfg(size=24, resize_mode=mode, **values)
        expected = transform.image_transform_v2(settings, is_train=False)(image)
        assert torch.equal(PrepareImages(24, **values, resize_mode=mode)({"pil": [image]})["pixels"][0], expected)


def test_tiles_are_the_image_in_reading_order():
    image = columns(24, 16)
    frames, tile_ids = prepared(image, tiles=dict(max=6))
    places = [tile_places(6)[tile_id] for tile_id in tile_ids[0]]
    assert places == [(1, 1, 0, 0), *((2, 3, row, column) for row in range(2) for column in range(3))]
    assert torch.equal(frames[0], prepared(image)[0])
    whole = torch.tensor(np.asarray(image)).permute(2, 0, 1)
    for frame, (_, _, row, column) in zip(frames[1:], places[1:], strict=True):
        assert torch.equal(frame, whole[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].int())


def test_tiles_have_borders_or_another_aspect_ratio():
    image = columns(24, 12)
    borders, ids = prepared(image, tiles=dict(max=6))
    squashed, same = prepared(image, tiles=dict(max=6, resize_mode="squash"))
    assert torch.equal(ids, same)
    assert borders[1, 2].any(dim=1).tolist() == [False] * 2 + [True] * 6
    assert squashed[1, 2].all()
    assert squashed[4, 1, -1, 0] == borders[4, 1, 5, 0] == 11


def test_an_image_with_no_more_pixels_than_the_encoder_takes_is_not_cut():
    frames, tile_ids = prepared(columns(8, 7), tiles=dict(max=6))
    assert tile_ids.tolist() == [[0]]
    assert torch.equal(frames[0], prepared(columns(8, 7))[0])


def test_the_images_of_a_sample_have_as_many_frames_as_the_one_with_most():
    results = PrepareImages(8, **ALONE, tiles=dict(max=2))({"pil": [columns(8, 8), columns(16, 8)]})
    assert results["pixels"].shape == (2, 3, 3, 8, 8)
    assert results["tile_ids"].tolist() == [[0, -1, -1], [0, 1, 2]]
    assert not results["pixels"][0, 1:].any()


@pytest.mark.parametrize("tiles", [None, dict(max=1)])
def test_without_tiles_pixels_are_those_of_before(tiles):
    results = PrepareImages(8, **ALONE, tiles=tiles)({"pil": [columns(24, 16)]})
    assert results["tile_ids"] is None
    assert torch.equal(results["pixels"], PrepareImages(8, **ALONE)({"pil": [columns(24, 16)]})["pixels"])


def test_tiles_beside_the_preprocessing_of_a_library():
    """The whole image is as the library prepares it, with its margins cut off; the tiles are not cropped."""
    settings = dict(library="timm", input_size=(3, 8, 8), crop_pct=0.5, interpolation="nearest", crop_mode="center")
    settings |= dict(mean=[0.5] * 3, std=[0.25] * 3)
    results = PrepareImages(preprocessing=settings, tiles=dict(max=4))({"pil": [columns(16, 16)]})
    whole, *tiles = results["pixels"][0] * 0.25 + 0.5
    assert whole[0, 0].mul(255).round().tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
    assert tiles[0][0, 0].mul(255).round().tolist() == list(range(8))
    assert len(tiles) == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(tiles=dict(max=0)), "tiles: max=0 must be a number of tiles, from 1 on"),
        (dict(tiles=dict(max="6")), "tiles: max='6' must be a number"),
        (dict(tiles=dict(most=6)), r"tiles=\{'most': 6\} must be a dict of max and perhaps resize_mode"),
        (dict(tiles={}), r"tiles=\{\} must be a dict of max"),
        (dict(tiles=6), "tiles=6 must be a dict of max"),
        (dict(tiles=dict(max=6, resize_mode="fit")), "resize_mode='fit': choose among shortest, longest, squash"),
        (dict(resize_mode="pad"), "resize_mode='pad': choose among shortest, longest, squash"),
    ],
)
def test_settings_that_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        PrepareImages(8, **ALONE, **settings)


def test_a_resize_mode_beside_the_preprocessing_of_a_library_is_refused():
    with pytest.raises(ValueError, match="resize_mode='squash' beside preprocessing, which has its own"):
        PrepareImages(preprocessing=dict(library="open_clip", size=8), resize_mode="squash")
