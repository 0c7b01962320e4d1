"""The folder of cached features: what is found in it, and what is not."""

import json
import os
import pickle

import pytest
import torch

from mmgpt.datasets.feature_cache import FeatureCache, add_features, create_cache, image_key

STEPS = [dict(type="LoadImages"), dict(type="PrepareImages", size=16, mean=(0.5, 0.5, 0.5), std=[0.5] * 3)]


@pytest.fixture
def folder(tmp_path):
    """A cache of 5 images in three files, keys out of order; the image with key k has features that are all k."""
    create_cache(tmp_path / "cache", STEPS, "float32")
    for keys in ([7, -3], [2**62, 5], [-(2**62)]):
        keys = torch.tensor(keys)
        add_features(tmp_path / "cache", keys, keys.float()[:, None, None].expand(-1, 4, 3))
    return tmp_path / "cache"


def test_every_image_is_found_by_its_key(folder):
    cache = pickle.loads(pickle.dumps(FeatureCache(folder, STEPS)))
    for key in (7, -3, 2**62, 5, -(2**62)):
        assert key in cache
        assert torch.equal(cache.read(key), torch.full((4, 3), float(key)))
    for key in (6, -(2**63), 2**63 - 1):
        assert key not in cache
        with pytest.raises(KeyError):
            cache.read(key)
    assert len(list((folder / "features").iterdir())) == 3


def test_empty_cache_has_no_image(tmp_path):
    create_cache(tmp_path, STEPS, "float16")
    assert 0 not in FeatureCache(tmp_path, STEPS)


def test_cache_without_an_entry_for_transparency_is_an_error(folder):
    meta = json.loads((folder / "meta.json").read_text())
    del meta["transparency"]
    (folder / "meta.json").write_text(json.dumps(meta))
    for use in (lambda: FeatureCache(folder, STEPS), lambda: create_cache(folder, STEPS, "float32")):
        with pytest.raises(ValueError, match="without their transparency.*fill it again"):
            use()


def test_key_depends_on_path_size_and_time(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"12")
    other.write_bytes(b"12")
    os.utime(other, ns=(one.stat().st_atime_ns, one.stat().st_mtime_ns))
    (tmp_path / "link").symlink_to(one)
    key = image_key(one)
    assert key == image_key(str(one)) == image_key(tmp_path / "link") == image_key(os.path.relpath(one))
    assert image_key(other) != key
    assert -(2**63) <= key < 2**63
    os.utime(one, ns=(0, one.stat().st_mtime_ns + 1))
    later = image_key(one)
    before = one.stat()
    one.write_bytes(b"123")
    os.utime(one, ns=(0, before.st_mtime_ns))
    assert len({key, later, image_key(one)}) == 3
    with pytest.raises(FileNotFoundError):
        image_key(tmp_path / "none")


def test_incomplete_files_are_not_read(folder):
    (folder / "features" / "0.part").write_bytes(b"half")
    assert 7 in FeatureCache(folder, STEPS)
    file = sorted((folder / "features").glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{file} is damaged .*: delete it, and fill the cache again"):
        FeatureCache(folder, STEPS)


def test_cache_of_other_transforms_is_an_error(folder):
    other = [STEPS[0], dict(STEPS[1], size=32)]
    with pytest.raises(ValueError, match=r"prepared by .*'size': 16.*, the pipeline prepares them by .*'size': 32"):
        FeatureCache(folder, other)
    with pytest.raises(ValueError, match="was filled for .*'size': 16.*, not .*'size': 32"):
        create_cache(folder, other, "float32")
    with pytest.raises(ValueError, match="was filled for .*float32.*, not .*float16"):
        create_cache(folder, STEPS, "float16")
    create_cache(folder, STEPS, "float32")
    assert 7 in FeatureCache(folder, STEPS)


@pytest.mark.parametrize("place", [None, "nowhere"])
def test_missing_cache_names_the_command_that_fills_it(place):
    with pytest.raises(FileNotFoundError, match="no cached features there; fill it by `python .*cache_features.py"):
        FeatureCache(place, STEPS)


def test_files_that_begin_with_the_same_image_do_not_replace_each_other(tmp_path):
    create_cache(tmp_path, [], "float32")
    for keys in ([5, 6, 7], [5, 9]):
        add_features(tmp_path, torch.tensor(keys), torch.tensor(keys).float().view(-1, 1, 1))
    cache = FeatureCache(tmp_path, [])
    assert [cache.read(key).item() for key in (6, 7, 9)] == [6, 7, 9]


def test_the_frames_of_a_tiled_image_are_found_in_their_order(tmp_path):
    create_cache(tmp_path, STEPS, "float32")
    for keys, tile_ids in (([7, 7, 7, -3], [0, 1, 2, 0]), ([9, 5, 5, 5, 7, 7, 7], [0, 0, 3, 4, 0, 1, 2])):
        keys, tile_ids = torch.tensor(keys), torch.tensor(tile_ids)
        add_features(tmp_path, keys, (10 * keys + tile_ids).float()[:, None, None].expand(-1, 4, 3), tile_ids)
    cache = FeatureCache(tmp_path, STEPS)
    # The last one was added twice.
    for key, places in ((-3, [0]), (9, [0]), (5, [0, 3, 4]), (7, [0, 1, 2])):
        features, tile_ids = cache.read_frames(key)
        assert tile_ids.tolist() == places
        assert features[:, 0, 0].tolist() == [10 * key + place for place in places]
        assert cache.read(key)[0, 0] == 10 * key
    with pytest.raises(KeyError):
        cache.read_frames(6)
