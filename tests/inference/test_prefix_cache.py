"""What is kept of texts and images: the longest common beginning, and no more bytes than allowed."""

import numpy as np
import pytest
import torch

from mmgpt.inference.decoding_batch import Known, SeenImage
from mmgpt.inference.prefix_cache import Kept, name_of, names_of
from tests.models.test_gated_lm import IMAGE, gated

TOKEN = 2 * 8 * 4  # bytes of the keys and values of a token in `known`


def known(length, start=0.0):
    """Keys and values of one layer, which tell the places of their tokens."""
    x = torch.arange(start, start + length).reshape(1, 1, length, 1).repeat(1, 1, 1, 8)
    return Known(((x, -x),))


def names(*tokens):
    return np.array([[token, 0] for token in tokens])


def image(value, latents=4):
    x = torch.full((1, 1, latents, 8), float(value))
    return SeenImage(torch.full((1, latents, 16), float(value)), {1: (x, x)})


def test_the_longest_common_beginning_is_found():
    kept = Kept(10**6)
    assert len(kept.beginning(names(1, 2))) == 0
    kept.keep_text(names(1, 2, 3, 4), known(4))
    kept.keep_text(names(1, 2, 9), known(3, start=100.0))
    assert len(kept.beginning(names(7, 2, 3))) == 0
    found = kept.beginning(names(1, 2, 3, 5, 6))
    assert found.layers[0][0][0, 0, :, 0].tolist() == [0, 1, 2]
    assert kept.beginning(names(1, 2, 9, 9)).layers[0][0][0, 0, :, 0].tolist() == [100, 101, 102]
    assert len(kept.beginning(names(1, 2, 3, 4))) == 4 and len(kept.beginning(names(1))) == 1


def test_a_longer_text_takes_the_place_of_its_beginnings():
    kept = Kept(10**6)
    kept.keep_text(names(1, 2), known(2))
    kept.keep_text(names(1, 2, 3), known(3))
    kept.keep_text(names(1, 2, 3), known(3))
    assert kept.nbytes == 3 * TOKEN


def test_the_longest_unused_goes_first():
    kept = Kept(9 * TOKEN)
    for token in (1, 2, 3):
        kept.keep_text(names(token, 0, 0), known(3))
    kept.beginning(names(1, 0))
    kept.keep_text(names(4, 0), known(2))
    assert [len(kept.beginning(names(token, 0))) for token in (1, 2, 3, 4)] == [2, 0, 2, 2]
    assert kept.nbytes == 8 * TOKEN
    kept.keep_text(names(5), known(100))
    assert kept.nbytes == 0 and len(kept.beginning(names(5))) == 0


def test_what_goes_is_not_found_any_more():
    kept = Kept(6 * TOKEN)
    for last in range(20):
        kept.keep_text(names(1, 2, last), known(3, start=float(last)))
        found = kept.beginning(names(1, 2, last, 5))
        assert len(found) == 3 and found.layers[0][0][0, 0, 0, 0] == last
    assert kept.nbytes == 6 * TOKEN and len(kept._texts) == 2 and len(kept._beginnings) <= 6


def test_images_go_last_and_the_longest_unused_first():
    size = image(1).nbytes
    kept = Kept(2 * size + 3 * TOKEN)
    kept.keep_text(names(1, 2, 3), known(3))
    for number in (1, 2):
        kept.keep_image(b"image %d" % number, image(number))
    assert len(kept.beginning(names(1, 2, 3))) == 3
    kept.image(b"image 1")
    kept.keep_image(b"image 3", image(3))
    assert len(kept.beginning(names(1, 2, 3))) == 0
    assert kept.image(b"image 2") is None and kept.image(b"image 1").latents[0, 0, 0] == 1
    assert kept.nbytes == 2 * size


@pytest.mark.parametrize(
    ("image_attention", "expected"), [("latest", [1, "a", "a", "b", "b"]), ("next", ["a", "a", "b", "b", 1])]
)
def test_a_token_is_named_with_the_image_that_it_reads(image_attention, expected):
    ids = torch.tensor([[7, IMAGE, 8, IMAGE, 9]])
    images = {name: name.encode() * 8 for name in ("a", "b")}
    numbers = {name: int.from_bytes(value, signed=True) for name, value in images.items()}
    found = names_of(gated(image_attention=image_attention), ids, list(images.values()))
    assert found[:, 0].tolist() == ids[0].tolist()
    assert found[:, 1].tolist() == [numbers.get(name, name) for name in expected]
    # Without images a text skips the gated blocks.
    assert names_of(gated(image_attention=image_attention), ids, [])[:, 1].tolist() == [0] * 5


def test_names_of_images():
    pixels = torch.rand(3, 4, 4)
    other = pixels.clone()
    other[2, 3, 3] += 1e-3
    assert name_of(pixels) == name_of(pixels.clone()) != name_of(other)
    assert name_of(pixels, 1) != name_of(pixels, 0)
