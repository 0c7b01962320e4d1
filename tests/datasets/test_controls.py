import pytest
import torch

from mmgpt.cli.image_control import with_control
from mmgpt.datasets import ImageControl
from mmgpt.datasets.feature_cache import create_cache


def shown(dataset):
    return [(tuple(data["meta"]["images"]), data["meta"]["id"], data["pixels"]) for data in dataset]


def test_other_kind_gives_images_of_another_sample(build, caption_config):
    config = caption_config(5)
    plain, other = shown(build(config)), shown(ImageControl(config, "other"))
    assert [sample for _, sample, _ in plain] == [sample for _, sample, _ in other]
    assert all(a != b and not torch.equal(x, y) for (a, _, x), (b, _, y) in zip(plain, other, strict=True))
    # Each image is used once: an exchange, not a draw.
    assert sorted(a for a, _, _ in plain) == sorted(b for b, _, _ in other)
    assert all(torch.equal(a[2], b[2]) for a, b in zip(other, shown(ImageControl(config, "other")), strict=True))
    orders = {tuple(images for images, _, _ in shown(ImageControl(config, "other", seed))) for seed in range(5)}
    assert len(orders) > 1


def test_zero_kind_gives_zero_pixels(build, caption_config):
    control = ImageControl(build(caption_config(3)), "zero")
    assert all((pixels == 0).all() and pixels.shape == (1, 3, 16, 16) for _, _, pixels in shown(control))
    assert len(control) == 3
    assert control.name == "captions"
    assert control.metainfo == {}


@pytest.mark.parametrize("kind", ["other", "zero"])
def test_samples_without_images_do_not_change(build, dolly_config, kind):
    config = dolly_config(["red", "blue"])
    for a, b in zip(build(config), ImageControl(config, kind), strict=True):
        assert torch.equal(a["input_ids"], b["input_ids"])
        assert b["pixels"] is None


def test_wrong_arguments(caption_config):
    with pytest.raises(ValueError, match="kind='none': choose among other, zero"):
        ImageControl(caption_config(2), "none")
    with pytest.raises(ValueError, match="dataset 'captions': no other image to exchange .*captions_0.png"):
        ImageControl(caption_config(1), "other")


def test_cached_features_have_no_pixels(tmp_path, build, caption_config, steps):
    images, text = steps(size=16)[:2], steps()
    create_cache(tmp_path, images, "float16")
    dataset = build(caption_config(2, pipeline=[dict(type="LoadFeatures", cache=str(tmp_path), steps=images), *text]))
    with pytest.raises(ValueError, match="kind='zero': dataset 'captions' reads cached features, which have no pixels"):
        ImageControl(dataset, "zero")
    assert len(ImageControl(dataset, "other")) == 2


def test_control_of_all_pictures_of_a_config(build, caption_config, dolly_config):
    joint = dict(type="JointDataset", seed=3, visual=[caption_config(3)], language=[dolly_config(["red"])])
    made = with_control(joint, "other")
    assert made["language"] == joint["language"]
    assert joint["visual"] == [caption_config(3)]
    (control,) = made["visual"]
    assert control == dict(type="ImageControl", kind="other", dataset=caption_config(3))
    mixed = build(made)
    assert mixed.visual[0].dataset.seed == 3
    shown = [row["meta"]["images"] for row in mixed if row["source"] == "visual"]
    assert len(mixed) == 4
    assert sorted(map(tuple, shown)) == [(f"captions_{i}.png",) for i in range(3)]
    assert all(images != [f"captions_{i}.png"] for i, images in enumerate(shown))
    assert with_control(dolly_config(["red"]), "other") == dolly_config(["red"])
    assert with_control(caption_config(2), "zero")["type"] == "ImageControl"
