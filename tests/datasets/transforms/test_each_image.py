"""Image transforms of mmcv and mmpretrain in a pipeline: their own pixel values, drawn by seed, epoch and index."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from mmgpt.datasets.transforms import EachImage
from mmgpt.registry import DATASETS
from mmgpt.utils.errors import SampleError, SampleLocation

mmcv = pytest.importorskip("mmcv")
JITTER = dict(brightness=0.5, contrast=0.5, saturation=0.5)


@pytest.fixture
def dataset(tmp_path):
    """A function that builds a dataset of two samples, of one and of two images, with some image transforms."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "data.jsonl").write_text(
        '{"images": ["a.png"], "turns": [{"question": "what?"}]}\n'
        '{"images": ["b.png", "c.png"], "turns": [{"question": "what?"}]}'
    )

    def build(*transforms, seed=0):
        return DATASETS.build(
            dict(
                type="InstructionDataset",
                parser="conversation",
                ann_file=str(tmp_path / "data.jsonl"),
                data_prefix=dict(img=str(tmp_path)),
                pipeline=[dict(type="LoadImages"), *transforms],
                seed=seed,
            )
        )

    return build


def bgr(folder, name):
    return np.asarray(Image.open(folder / name))[..., ::-1].copy()


def pixels(results):
    """The images of a sample, uint8 (H, W, 3) each, blue first."""
    return [np.asarray(image)[..., ::-1] for image in results["pil"]]


@pytest.mark.parametrize("wrapped", [False, True], ids=["in the pipeline", "in EachImage"])
def test_mmcv_resize_gives_what_mmcv_computes(dataset, tmp_path, wrapped):
    resize = dict(type="mmcv.Resize", scale=(12, 16))
    data = dataset(dict(type="EachImage", transforms=[resize]) if wrapped else resize)
    for results, names in zip(data, (["a.png"], ["b.png", "c.png"]), strict=True):
        expected = [mmcv.imresize(bgr(tmp_path, name), (12, 16)) for name in names]
        assert np.array_equal(pixels(results), expected)


def test_mmpretrain_color_jitter_gives_what_mmpretrain_computes(dataset, tmp_path):
    processing = pytest.importorskip("mmpretrain.datasets.transforms", reason="mmpretrain cannot be imported")
    data = dataset(dict(type="mmpretrain.ColorJitter", **JITTER), seed=3)
    for epoch in (0, 2):
        [rng] = np.random.default_rng([3, epoch, 1]).spawn(1)
        np.random.seed(int(rng.integers(2**32)))
        jitter = processing.ColorJitter(**JITTER)
        expected = [jitter({"img": bgr(tmp_path, name)})["img"] for name in ("b.png", "c.png")]
        assert np.array_equal(pixels(data[epoch * len(data) + 1]), expected)
        assert not np.array_equal(expected[0], bgr(tmp_path, "b.png"))


class DrawsFromAllGenerators:
    def __call__(self, results):
        draws = [np.random.randint(256), random.randrange(256), int(torch.randint(256, ()))]
        results["img"] = np.full((1, 1, 3), draws, np.uint8)
        return results


def test_draws_depend_on_seed_epoch_and_index_alone(dataset):
    data = dataset(EachImage([]))
    data.pipeline.transforms[1].transforms = [DrawsFromAllGenerators()]
    first = pixels(data[1])
    np.random.seed(1), random.seed(1), torch.manual_seed(1)
    states = [np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()]
    again = pixels(data[1])
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, pixels(data[3]))
    assert np.array_equal(states[0], np.random.get_state()[1])
    assert states[1] == random.getstate()
    assert torch.equal(states[2], torch.get_rng_state())


def test_later_draws_are_the_same_as_without_image_transforms(dataset):
    flip = dict(type="mmcv.RandomFlip", prob=0.5)
    assert dataset(flip)[1]["rng"].random() == dataset()[1]["rng"].random()


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (dict(type="mmcv.Normalize", mean=[0] * 3, std=[1] * 3), r"Normalize gives float32 \(20, 30, 3\) as `img`"),
        (dict(type="mmcv.RandomGrayscale", prob=1.0), r"RandomGrayscale gives uint8 \(20, 30\) as `img`"),
    ],
)
def test_outputs_that_are_not_images_are_refused(dataset, transform, words):
    with pytest.raises(SampleError, match=words) as raised:
        dataset(transform)[0]
    assert raised.value.location == SampleLocation.of(dataset().get_data_info(0), image="a.png")
