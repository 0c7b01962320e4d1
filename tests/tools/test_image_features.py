"""The vectors of a config's test images and those of its examples, and the choice of examples by them."""

import base64
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from mmgpt.registry import DATASETS, MODELS

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "dataset_converters"))

from image_features import main  # noqa: E402

STEPS = [dict(type="LoadImages"), dict(type="PrepareImages", size=32, mean=[0.5] * 3, std=[0.5] * 3)]


def data_uri(folder):
    return f"data:image/png;base64,{base64.b64encode((folder / 'd.png').read_bytes()).decode()}"


@pytest.fixture
def config(tmp_path, tiny_clip):
    """A config with two questions about images, and three examples: a has the first one's image, d a data URI."""
    draw = np.random.default_rng(0)
    for name in "abcd":
        Image.fromarray(draw.integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / f"{name}.png")
    for name, images in (("asked", "ab"), ("shown", "acd")):
        turns = [{"question": "what", "answer": "red"}]
        files = {image: data_uri(tmp_path) if image == "d" else f"{image}.png" for image in images}
        lines = [json.dumps({"id": image, "images": [file], "turns": turns}) for image, file in files.items()]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    data = dict(type="InstructionDataset", parser="conversation", data_root=str(tmp_path), data_prefix=dict(img=""))
    add = dict(type="AddExamples", shots=0, similar=None, dataset=dict(data, ann_file="shown.jsonl", pipeline=[]))
    asked = dict(data, ann_file="asked.jsonl", pipeline=[add, "${pixel_steps}"])
    values = dict(
        model=dict(type="LoRAModel", module=dict(vision=dict(type="OpenCLIPVision", path=tiny_clip))),
        pixel_steps=STEPS,
        test_dataloader=dict(dataset=asked),
    )
    (tmp_path / "config.py").write_text("\n".join(f"{key} = {value!r}" for key, value in values.items()))
    return tmp_path / "config.py"


def test_vectors_are_mean_patch_features(config, tmp_path, tiny_clip, capsys):
    out = tmp_path / "v.safetensors"
    main([str(config), "--out", str(out), "--workers", "1", "--batch-size", "3", "--device", "cpu"])
    assert "4 images, 32 numbers each" in capsys.readouterr().out
    with safe_open(out, "pt") as content:
        features, images = content.get_tensor("features"), json.loads(content.metadata()["images"])
    paths = {name: os.path.realpath(tmp_path / f"{name}.png") for name in "abc"} | {"d": data_uri(tmp_path)}
    assert sorted(images) == sorted(paths.values())
    vision = MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip)).eval()
    with Image.open(images[2]) as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(features[2], vision(pixels).mean(dim=1)[0], rtol=1e-3, atol=1e-3)

    shown = dict(type="InstructionDataset", parser="conversation", data_root=str(tmp_path), data_prefix=dict(img=""))
    add = dict(type="AddExamples", shots=2, similar=str(out), dataset=dict(shown, ann_file="shown.jsonl", pipeline=[]))
    asked = DATASETS.build(dict(shown, ann_file="asked.jsonl", pipeline=[add]))
    assert sorted(asked[0]["examples"]) == ["c", "d"]
    vectors = dict(zip(images, torch.nn.functional.normalize(features, dim=1), strict=True))
    likeness = {name: vectors[paths[name]] @ vectors[paths["b"]] for name in "acd"}
    assert asked[1]["examples"] == sorted(likeness, key=likeness.get)[1:]


def test_an_unreadable_image_is_named(config, tmp_path):
    (tmp_path / "c.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="an image cannot be read: .*c.png"):
        main([str(config), "--out", str(tmp_path / "v.safetensors"), "--workers", "1", "--device", "cpu"])
    assert not (tmp_path / "v.safetensors").exists()
