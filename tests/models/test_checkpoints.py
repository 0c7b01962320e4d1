"""The parts of a base: written, loaded, and refused when they do not fit."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmgpt.models.export import save_language, save_parts, save_vision
from mmgpt.registry import MODELS

from .test_flamingo import batch


@pytest.fixture
def model(tiny_flamingo_config):
    torch.manual_seed(3)
    return MODELS.build(tiny_flamingo_config).eval()


def test_a_saved_base_gives_the_same_logits(model, tiny_flamingo_config, tmp_path):
    save_parts(model, str(tmp_path / "flamingo.safetensors"), torch.float32)
    save_language(model, str(tmp_path / "language"), torch.float32)
    config = dict(tiny_flamingo_config, weights=str(tmp_path / "flamingo.safetensors"))
    config["language"] = dict(path=str(tmp_path / "language"))
    torch.manual_seed(4)
    loaded = MODELS.build(config).eval()
    data = batch(model)
    torch.testing.assert_close(loaded(**data), model(**data))


def test_published_names_load(model, tiny_flamingo_config, tmp_path):
    """Both names that OpenFlamingo v1 files have for the gated blocks; the token embedding comes along."""
    state = model.state_dict()
    for number, gated in enumerate(
        ("lang_encoder.model.layers.{}.gated_cross_attn_layer.", "lang_encoder.gated_cross_attn_layers.{}.")
    ):
        published = {}
        for name, value in state.items():
            if name.startswith("perceiver."):
                published[name] = value
            if ".gated." in name:
                layer, rest = name.removeprefix("language.model.model.layers.").split(".gated.")
                published[gated.format(layer) + rest] = value
        published["lang_encoder.model.embed_tokens.weight"] = state["language.model.model.embed_tokens.weight"] + 1
        path = tmp_path / f"{number}.pt"
        torch.save(published, path)
        loaded = MODELS.build(dict(tiny_flamingo_config, weights=str(path))).state_dict()
        assert all(torch.equal(loaded[name], state[name]) for name in state if ".gated." in name)
        assert torch.equal(loaded["perceiver.latents"], state["perceiver.latents"])
        embedding = "language.model.model.embed_tokens.weight"
        assert torch.equal(loaded[embedding], state[embedding] + 1)


def test_a_file_that_does_not_fit_is_refused(model, tiny_flamingo_config, tmp_path):
    path = tmp_path / "flamingo.safetensors"
    save_parts(model, str(path))
    state = load_file(path)
    latents = state.pop("perceiver.latents")
    save_file(state, path)
    with pytest.raises(ValueError, match="(?s)flamingo.safetensors .* 1 are missing in it: perceiver.lat"):
        MODELS.build(dict(tiny_flamingo_config, weights=str(path)))
    save_file(state | {"perceiver.latents": latents[:2], "perceiver.eyes": latents.clone()}, path)
    with pytest.raises(ValueError, match=r"(?s)not known here: perceiver.eyes.* \(2, 32\) instead of \(4, 32\)"):
        MODELS.build(dict(tiny_flamingo_config, weights=str(path)))
    with pytest.raises(FileNotFoundError, match="no weights"):
        MODELS.build(dict(tiny_flamingo_config, weights=str(tmp_path / "none.safetensors")))


def test_a_pickle_with_code_is_refused(tiny_flamingo_config, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"perceiver.latents": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="evil.pt .* it asks for .*open to be run or built, which is refused"):
        MODELS.build(dict(tiny_flamingo_config, weights=str(tmp_path / "evil.pt")))
    assert not (tmp_path / "written").exists()


def test_a_saved_tower_loads_as_an_open_clip_folder(tiny_clip, tmp_path):
    description = json.loads(open(f"{tiny_clip}/open_clip_config.json").read())["model_cfg"]
    (tmp_path / "saved-tower.json").write_text(json.dumps(description))
    torch.manual_seed(5)
    vision = MODELS.build(dict(type="OpenCLIPVision", model=str(tmp_path / "saved-tower.json"))).eval()
    save_vision(vision, str(tmp_path / "saved-tower.json"), str(tmp_path / "vision"), torch.float32)
    loaded = MODELS.build(dict(type="OpenCLIPVision", path=str(tmp_path / "vision"))).eval()
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(loaded(pixels), vision(pixels))
