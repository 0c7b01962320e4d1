import base64
import os

import pytest
import torch
from PIL import Image

from mmgpt.datasets.feature_cache import add_features, create_cache, image_key
from mmgpt.registry import TRANSFORMS

STEPS = [dict(type="LoadImages"), dict(type="PrepareImages", size=16, mean=[0.5] * 3, std=[0.5] * 3)]
FEATURES = torch.arange(24.0).reshape(2, 4, 3)


@pytest.fixture
def load(tmp_path):
    """LoadFeatures of a cache with a.png and b.png."""
    for name in ("a", "b", "c"):
        Image.new("RGB", (20, 30)).save(tmp_path / f"{name}.png")
    create_cache(tmp_path / "cache", STEPS, "float16")
    keys = torch.tensor([image_key(tmp_path / "a.png"), image_key(tmp_path / "b.png")])
    add_features(tmp_path / "cache", keys, FEATURES.half())
    return TRANSFORMS.build(dict(type="LoadFeatures", cache=str(tmp_path / "cache"), steps=STEPS))


def record(folder, *names):
    return {"dataset": "d", "file": "ann.json", "record": 4, "id": "x", "image_folder": folder, "images": list(names)}


def test_features_in_the_order_of_the_images(load, tmp_path):
    pixels = load(record(tmp_path, "b.png", "a.png", "b.png"))["pixels"]
    assert pixels.dtype == torch.float16
    assert torch.equal(pixels, FEATURES[[1, 0, 1]].half())
    assert load(record(tmp_path))["pixels"] is None


def test_image_that_is_not_in_the_cache_is_an_error(load, tmp_path):
    location = "dataset 'd', file 'ann.json', record 4, id 'x'"
    words = "of the file as it is now: `python .*cache_features.py CONFIG` adds them"
    with pytest.raises(ValueError, match=rf"{location}, image '.*c.png': no features in .*cache {words}"):
        load(record(tmp_path, "a.png", "c.png"))
    with pytest.raises(FileNotFoundError, match=rf"{location}, image '.*d.png': no such file"):
        load(record(tmp_path, "d.png"))


def test_changed_image_is_an_error(load, tmp_path):
    os.utime(tmp_path / "a.png", (0, 0))
    with pytest.raises(ValueError, match="image '.*a.png': no features in .* of the file as it is now"):
        load(record(tmp_path, "a.png"))


def test_features_of_a_data_uri(load, tmp_path):
    uri = f"data:image/png;base64,{base64.b64encode((tmp_path / 'a.png').read_bytes()).decode()}"
    with pytest.raises(ValueError, match=r"image 'data:image/png;base64,.*\.\.\. \(\d+ characters\)': no features in"):
        load(record(tmp_path, uri))
    add_features(load.folder, torch.tensor([image_key(uri)]), FEATURES[1:].half())
    load = TRANSFORMS.build(dict(type="LoadFeatures", cache=load.folder, steps=STEPS))
    assert torch.equal(load(record(tmp_path, "a.png", uri))["pixels"], FEATURES.half())
