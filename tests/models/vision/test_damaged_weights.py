"""Weights of image encoders with values that no model can hold, in every format."""

import json
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmgpt.models.weights.reader import read_file
from mmgpt.registry import MODELS
from tests.models.vision.test_huggingface import save_clip
from tests.models.vision.test_mmpretrain import as_mmpretrain


def clip_folder(folder, tiny_clip):
    copytree(tiny_clip, folder)
    return dict(type="OpenCLIPVision", path=str(folder)), folder / "open_clip_model.safetensors", "visual.conv1.weight"


def clip_binary(folder, tiny_clip):
    config, file, name = clip_folder(folder, tiny_clip)
    torch.save(load_file(file), folder / "open_clip_pytorch_model.bin")
    file.unlink()
    return config, folder / "open_clip_pytorch_model.bin", name


def clip_file(folder, tiny_clip):
    _, file, name = clip_folder(folder, tiny_clip)
    description = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (folder / "an-encoder-to-damage.json").write_text(json.dumps(description))
    return dict(type="OpenCLIPVision", model=f"{folder}/an-encoder-to-damage.json", pretrained=str(file)), file, name


def hugging_face_folder(folder, tiny_clip):
    config, file = save_clip(folder), folder / "model.safetensors"
    name = next(name for name in load_file(file) if name.endswith("layers.0.mlp.fc1.weight"))
    return config, file, name


def mmpretrain(folder, tiny_clip):
    folder.mkdir()
    clip = MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip))
    torch.save(as_mmpretrain(clip.tower), folder / "vit.pth")
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128)
    config = dict(type="MMPretrainVision", arch=arch, img_size=32, patch_size=8, path=str(folder / "vit.pth"))
    return config, folder / "vit.pth", "backbone.layers.0.ffn.layers.1.weight"


@pytest.mark.parametrize("way", [clip_folder, clip_binary, clip_file, hugging_face_folder, mmpretrain])
def test_integers_and_infinite_values_are_refused(way, tiny_clip, tmp_path):
    config, file, name = way(tmp_path / "encoder", tiny_clip)
    MODELS.build(config)
    content = {key: value.clone() for key, value in read_file(file, mmap=False).items()}
    for value, words in (
        (content[name].to(torch.int8), f"{name.removeprefix('backbone.')} holds integers"),
        (content[name] * float("inf"), "1 tensors hold NaN or infinite values"),
    ):
        changed = {**content, name: value}
        torch.save(changed, file) if file.suffix != ".safetensors" else save_file(changed, file, {"format": "pt"})
        with pytest.raises(ValueError, match=words):
            MODELS.build(config)
