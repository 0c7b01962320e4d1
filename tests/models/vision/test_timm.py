"""TimmVision against timm's own models."""

import json
from shutil import copy

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf

from mmgpt.registry import MODELS
from tests.helpers.tolerances import assert_close

VIT = dict(depth=3, embed_dim=24, num_heads=2)
SWIN = dict(depths=[1, 1], num_heads=[1, 2], embed_dim=8, window_size=4)
NETWORKS = {  # arguments that make them small, image size, grid, prefix tokens, whether timm norms the last features
    "vit_tiny_patch16_224": (dict(VIT, patch_size=8), 32, (4, 4), 1, True),
    "deit_tiny_distilled_patch16_224": (VIT, (32, 48), (2, 3), 2, True),
    "vit_small_patch14_reg4_dinov2": (VIT, 42, (3, 3), 5, True),
    "vit_small_patch16_dinov3": (VIT, 48, (3, 3), 5, True),
    "vit_base_patch16_siglip_224": (VIT, 32, (2, 2), 0, True),
    "vit_pe_core_tiny_patch16_384": (VIT, 32, (2, 2), 1, True),
    "eva02_tiny_patch14_224": (VIT, 42, (3, 3), 1, False),
    "beit_base_patch16_224": (VIT, 32, (2, 2), 1, False),
    "convnext_atto": (dict(depths=[1] * 4, dims=[8, 8, 16, 24]), 64, (2, 2), 0, False),
    "efficientnet_lite0": ({}, 64, (2, 2), 0, False),
    "resnet18": ({}, (64, 96), (2, 3), 0, False),
    "swin_tiny_patch4_window7_224": (SWIN, 32, (4, 4), 0, True),
    "hiera_tiny_224": (dict(stages=[1] * 4, embed_dim=8), 64, (2, 2), 0, False),
    "mobilenetv3_small_050": ({}, 64, (2, 2), 0, False),
}


def save_network(name, folder, **more):
    """A small random network, and the folder that timm writes of it."""
    arguments, size, *_ = NETWORKS[name]
    if timm.models.get_pretrained_cfg(name).fixed_input_size:
        arguments = dict(arguments, img_size=size)
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=7, **arguments, **more).eval()
    save_for_hf(network, str(folder), model_args=arguments, safe_serialization=True)
    return network, dict(type="TimmVision", path=str(folder), image_size=size)


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_timms_own_on_the_grid(name, tmp_path):
    _, size, grid, prefix_tokens, has_norm = NETWORKS[name]
    network, config = save_network(name, tmp_path)
    size = (size, size) if isinstance(size, int) else size
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        intermediates = network.forward_intermediates(pixels, intermediates_only=True)
        last = network.forward_features(pixels)
    for layer in (-1, -2, 1):
        encoder = MODELS.build(dict(config, layer=layer)).eval()
        features = encoder(pixels)
        assert encoder.image_size == size
        assert features.shape[1:] == (encoder.grid[0] * encoder.grid[1], encoder.width)
        assert_close(features, intermediates[layer].flatten(2).transpose(1, 2))
        # The head and the layers after this one are gone.
        assert len(encoder.state_dict()) < len(network.state_dict())
    encoder = MODELS.build(config).eval()
    assert encoder.grid == grid
    assert encoder.prefix_tokens == prefix_tokens
    assert encoder.pretrained
    if not has_norm:
        with pytest.raises(ValueError, match="final_norm=True"):
            MODELS.build(dict(config, final_norm=True))
        return
    # The features of timm's own forward pass are those after the norm, with the prefix tokens.
    normed = MODELS.build(dict(config, final_norm=True)).eval()(pixels)
    assert_close(normed, last.flatten(1, 2) if last.ndim == 4 else last[:, prefix_tokens:])
    assert not torch.allclose(normed, encoder(pixels), atol=1e-3)


def test_random_weights_and_a_file_of_another_head(tmp_path):
    network, config = save_network("vit_tiny_patch16_224", tmp_path)
    pixels = torch.randn(1, 3, 32, 32)
    expected = MODELS.build(config).eval()(pixels)
    random = MODELS.build(dict(config, pretrained=False)).eval()
    assert not random.pretrained
    assert not torch.allclose(random(pixels), expected)
    backbone = {name: value for name, value in network.state_dict().items() if not name.startswith("head.")}
    more_classes = {"head.weight": torch.zeros(9, 24), "head.bias": torch.zeros(9)}
    (tmp_path / "model.safetensors").unlink()
    for state in (backbone, backbone | more_classes):
        torch.save({"state_dict": state}, tmp_path / "model.pth")
        assert torch.equal(MODELS.build(config).eval()(pixels), expected)


def test_a_file_of_weights_by_model_name(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("resnet18").eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    config = dict(type="TimmVision", model="resnet18", pretrained=str(tmp_path / "weights.safetensors"), image_size=64)
    pixels = torch.randn(1, 3, 64, 64)
    encoder = MODELS.build(config).eval()
    assert_close(encoder(pixels), network.forward_features(pixels).flatten(2).transpose(1, 2))


def test_position_embeddings_are_resized_for_another_image_size(tmp_path):
    _, config = save_network("vit_tiny_patch16_224", tmp_path)
    encoder = MODELS.build(dict(config, image_size=48)).eval()
    assert encoder.grid == (6, 6)
    assert encoder(torch.zeros(1, 3, 48, 48)).shape == (1, 36, 24)
    small = MODELS.build(config).eval()
    table = small.tower.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    resized = torch.nn.functional.interpolate(table, size=(6, 6), mode="bicubic", antialias=True)
    assert_close(encoder.tower.pos_embed[:, 1:], resized.flatten(2).transpose(1, 2))


def test_weights_of_open_clip_give_its_features(tmp_path, tiny_clip):
    """timm renames the tensors of CLIP's own layout."""
    clip = MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip)).eval()
    arguments = dict(img_size=32, patch_size=8, depth=2, embed_dim=32, num_heads=2)
    description = dict(architecture="vit_base_patch32_clip_224", model_args=arguments, num_classes=16)
    description["pretrained_cfg"] = dict(input_size=(3, 32, 32), fixed_input_size=True, classifier="head")
    (tmp_path / "config.json").write_text(json.dumps(description))
    copy(f"{tiny_clip}/open_clip_model.safetensors", tmp_path)
    encoder = MODELS.build(dict(type="TimmVision", path=str(tmp_path))).eval()
    pixels = torch.randn(2, 3, 32, 32)
    assert encoder.image_size == (32, 32)
    assert encoder.prefix_tokens == clip.prefix_tokens == 1
    assert_close(encoder(pixels), clip(pixels))


def test_tensors_that_do_not_fit_are_named(tmp_path):
    network, config = save_network("resnet18", tmp_path)
    state = {f"backbone.{name}": value for name, value in network.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    words = "model.safetensors does not fit: it lacks 120 tensors: bn1.bias, .*; it holds, but should not, 122 tensors"
    with pytest.raises(ValueError, match=words):
        MODELS.build(config)
    state = network.state_dict() | {"conv1.weight": torch.zeros(64, 3, 3, 3)}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="TimmVision: .* cannot be built: (?s:.*)size mismatch for conv1.weight"):
        MODELS.build(config)


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        (dict(), ValueError, "takes path or model, got path=None and model=None"),
        (dict(model="resnet"), ValueError, "'resnet' is not a model name of timm; near ones: resnet"),
        (dict(model="resnet18.none"), ValueError, "Invalid pretrained tag"),
        (dict(path="{folder}"), FileNotFoundError, "config.json is missing"),
        (dict(path="{folder}/clip"), ValueError, "names no architecture of timm; HFVision reads"),
        (dict(path="{folder}/timm"), FileNotFoundError, "no weights in .*timm': model.safetensors is missing"),
        (dict(path="{folder}/timm", pretrained="w.pth"), ValueError, "pretrained='w.pth' goes with model"),
        (dict(model="resnet18", pretrained="w.pth"), FileNotFoundError, "there is no file of weights 'w.pth'"),
        (dict(model="resnet18", pretrained=False, layer=5), ValueError, "no patch features with layer=5"),
        (dict(model="resnet18.a1_in1k"), FileNotFoundError, "`hf download timm/resnet18.a1_in1k` with a network"),
    ],
)
def test_what_cannot_be_built_is_refused(config, error, words, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for folder, settings in (("clip", dict(model_type="clip")), ("timm", dict(architecture="resnet18"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps(settings))
    config = {key: value.format(folder=tmp_path) if key == "path" else value for key, value in config.items()}
    with pytest.raises(error, match=words):
        MODELS.build(dict(type="TimmVision", **config))
