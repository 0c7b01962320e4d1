"""Prefix cache: the longest common prefix is found, and no more bytes are held than allowed."""

import numpy as np
import pytest
import torch

from mmgpt.inference.kv_cache import EncodedImage, PrefixKV
from mmgpt.inference.prefix_cache import PrefixCache, image_digest, token_keys
from tests.models.test_gated_lm import IMAGE, gated

TOKEN = 2 * 8 * 4  # bytes of the keys and values of a token in `prefix`


def prefix(length, start=0.0):
    """Keys and values of one layer, which hold the positions of their tokens."""
    x = torch.arange(start, start + length).reshape(1, 1, length, 1).repeat(1, 1, 1, 8)
    return PrefixKV(((x, -x),))


def keys(*tokens):
    return np.array([[token, 0] for token in tokens])


def image(value, latents=4):
    x = torch.full((1, 1, latents, 8), float(value))
    return EncodedImage(torch.full((1, latents, 16), float(value)), {1: (x, x)})


def test_the_longest_common_prefix_is_found():
    cache = PrefixCache(10**6)
    assert len(cache.longest(keys(1, 2))) == 0
    cache.add(keys(1, 2, 3, 4), prefix(4))
    cache.add(keys(1, 2, 9), prefix(3, start=100.0))
    assert len(cache.longest(keys(7, 2, 3))) == 0
    found = cache.longest(keys(1, 2, 3, 5, 6))
    assert found.layers[0][0][0, 0, :, 0].tolist() == [0, 1, 2]
    assert cache.longest(keys(1, 2, 9, 9)).layers[0][0][0, 0, :, 0].tolist() == [100, 101, 102]
    assert len(cache.longest(keys(1, 2, 3, 4))) == 4
    assert len(cache.longest(keys(1))) == 1


def test_a_longer_prefix_replaces_its_own_prefixes():
    cache = PrefixCache(10**6)
    cache.add(keys(1, 2), prefix(2))
    cache.add(keys(1, 2, 3), prefix(3))
    cache.add(keys(1, 2, 3), prefix(3))
    assert cache.nbytes == 3 * TOKEN


def test_the_least_recently_used_prefix_is_evicted_first():
    cache = PrefixCache(9 * TOKEN)
    for token in (1, 2, 3):
        cache.add(keys(token, 0, 0), prefix(3))
    cache.longest(keys(1, 0))
    cache.add(keys(4, 0), prefix(2))
    assert [len(cache.longest(keys(token, 0))) for token in (1, 2, 3, 4)] == [2, 0, 2, 2]
    assert cache.nbytes == 8 * TOKEN
    cache.add(keys(5), prefix(100))
    assert cache.nbytes == 0
    assert len(cache.longest(keys(5))) == 0


def test_evicted_prefixes_are_not_found():
    cache = PrefixCache(6 * TOKEN)
    for last in range(20):
        cache.add(keys(1, 2, last), prefix(3, start=float(last)))
        found = cache.longest(keys(1, 2, last, 5))
        assert len(found) == 3
        assert found.layers[0][0][0, 0, 0, 0] == last
    assert cache.nbytes == 6 * TOKEN
    assert len(cache._prefixes) == 2
    assert len(cache._by_hash) <= 6


def test_images_are_evicted_last_and_in_order_of_use():
    size = image(1).nbytes
    cache = PrefixCache(2 * size + 3 * TOKEN)
    cache.add(keys(1, 2, 3), prefix(3))
    for number in (1, 2):
        cache.add_image(b"image %d" % number, image(number))
    assert len(cache.longest(keys(1, 2, 3))) == 3
    cache.image(b"image 1")
    cache.add_image(b"image 3", image(3))
    assert len(cache.longest(keys(1, 2, 3))) == 0
    assert cache.image(b"image 2") is None
    assert cache.image(b"image 1").latents[0, 0, 0] == 1
    assert cache.nbytes == 2 * size


@pytest.mark.parametrize(
    ("image_attention", "expected"), [("latest", [1, "a", "a", "b", "b"]), ("next", ["a", "a", "b", "b", 1])]
)
def test_a_token_key_names_the_image_that_the_token_attends_to(image_attention, expected):
    ids = torch.tensor([[7, IMAGE, 8, IMAGE, 9]])
    images = {name: name.encode() * 8 for name in ("a", "b")}
    numbers = {name: int.from_bytes(value, signed=True) for name, value in images.items()}
    found = token_keys(gated(image_attention=image_attention), ids, list(images.values()))
    assert found[:, 0].tolist() == ids[0].tolist()
    assert found[:, 1].tolist() == [numbers.get(name, name) for name in expected]
    # Without images a text skips the gated blocks.
    assert token_keys(gated(image_attention=image_attention), ids, [])[:, 1].tolist() == [0] * 5


def test_image_digests_depend_on_pixels_and_position():
    pixels = torch.rand(3, 4, 4)
    other = pixels.clone()
    other[2, 3, 3] += 1e-3
    assert image_digest(pixels) == image_digest(pixels.clone()) != image_digest(other)
    assert image_digest(pixels, 1) != image_digest(pixels, 0)
    side_by_side, below = torch.tensor([0, 1, 2]), torch.tensor([0, 3, 4])
    assert image_digest(pixels, 0, side_by_side) != image_digest(pixels, 0, below)
