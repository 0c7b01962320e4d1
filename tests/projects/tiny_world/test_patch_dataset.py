"""Labels of patches against labels written out by hand."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import projects.tiny_world.patch_dataset  # noqa: F401 (registers PatchLabelDataset)
from mmgpt.registry import DATASETS

CLASSES = dict(colour=["red", "blue"], cell=[0, 1, 2])


def dataset(folder, boxes, **options):
    Image.new("RGB", (32, 32), (255, 0, 0)).save(folder / "a.png")
    scenes = {"a.png": {"split": "train", "boxes": boxes}, "b.png": {"split": "heldout", "boxes": []}}
    (folder / "scenes.json").write_text(json.dumps(scenes))
    config = dict(type="PatchLabelDataset", classes=CLASSES, split="train", image_size=32, data_root=str(folder))
    config.update(ann_file="scenes.json", data_prefix=dict(img=""), **options)
    return DATASETS.build(config)


def test_patches_inside_a_box_get_its_labels_and_touched_ones_are_ignored(tmp_path):
    data = dataset(tmp_path, [{"box": [8, 8, 21, 16], "colour": "blue", "cell": 1}])
    assert len(data) == 1
    item = data[0]
    assert item["labels"]["colour"].reshape(4, 4).tolist() == [[0, 0, 0, 0], [0, 2, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert item["labels"]["cell"].reshape(4, 4)[1].tolist() == [0, 2, 2, 0]
    np.testing.assert_allclose(item["pixels"][:, 0, 0], [1, -1, -1])
    touched = dataset(tmp_path, [{"box": [8, 8, 19, 16], "colour": "blue", "cell": 1}])[0]["labels"]["colour"]
    assert touched.reshape(4, 4)[1].tolist() == [0, 2, -100, 0]


def test_a_box_without_a_label_is_background_for_it(tmp_path):
    labels = dataset(tmp_path, [{"box": [8, 8, 24, 16], "colour": "red"}])[0]["labels"]
    assert labels["cell"].tolist() == [0] * 16
    assert labels["colour"].sum() == 2


def test_grey_images_have_no_colour_labels(tmp_path):
    item = dataset(tmp_path, [{"box": [8, 8, 24, 16], "colour": "red", "cell": 2}], grey=1.0)[0]
    assert torch.equal(item["pixels"][0], item["pixels"][2])
    assert (item["labels"]["colour"] == -100).all()
    assert (item["labels"]["cell"] == 3).sum() == 2


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        ({"boxes": []}, "no key 'split'; keys found: boxes"),
        (
            {"split": "train", "boxes": [{"box": [0, 0, 8, 8], "colour": "mauve"}]},
            "colour 'mauve' is none of .* red, blue",
        ),
        ({"split": "train"}, "KeyError: 'objects'"),
    ],
)
def test_wrong_entries_name_file_and_image(tmp_path, scene, words):
    (tmp_path / "scenes.json").write_text(json.dumps({"a.png": scene}))
    config = dict(type="PatchLabelDataset", classes=CLASSES, split="train", ann_file=str(tmp_path / "scenes.json"))
    with pytest.raises(ValueError, match=f"scenes.json, image 'a.png': {words}"):
        DATASETS.build(config)


def test_an_empty_split_is_an_error(tmp_path):
    data = dataset(tmp_path, [])
    with pytest.raises(ValueError, match="no images of split 'test'"):
        DATASETS.build(dict(type="PatchLabelDataset", classes=CLASSES, split="test", ann_file=data.ann_file))
