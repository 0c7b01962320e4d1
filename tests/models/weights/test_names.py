"""Key maps of the published layouts."""

import pytest
import torch

from mmgpt.models.weights.names import our_names
from mmgpt.models.weights.writer import save_openflamingo
from mmgpt.registry import MODELS


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


def test_openflamingo_v2_files_load(tiny_v2, tiny_flamingo_config, tmp_path):
    """Wrapped by DDP, with the lists that stand beside the layers, and without the frozen embeddings."""
    config = dict(tiny_flamingo_config, language=dict(path=tiny_v2))
    torch.manual_seed(3)
    model = MODELS.build(config)
    save_openflamingo(model, str(tmp_path / "plain.pt"))
    published = torch.load(tmp_path / "plain.pt", weights_only=True)
    layers = "gpt_neox.layers" if "gpt_neox" in tiny_v2 else "transformer.blocks"
    assert f"lang_encoder.{layers}.1.gated_cross_attn_layer.attn_gate" in published
    state = {}
    for name, value in published.items():
        if "embed_in" not in name and "wte" not in name:
            state[f"module.{name}"] = value
        if "gated_cross_attn_layer" in name:
            number, rest = name.removeprefix(f"lang_encoder.{layers}.").split(".gated_cross_attn_layer.")
            state[f"module.lang_encoder.gated_cross_attn_layers.{number}.{rest}"] = value
    old = next(name for name in model.state_dict() if f"{layers}.0." in name)
    listed = old.replace(f"language.model.{layers}", "module.lang_encoder.old_decoder_blocks")
    state[listed] = model.state_dict()[old]
    torch.save({"epoch": 1, "model_state_dict": state}, tmp_path / "wrapped.pt")
    for name in ("plain.pt", "wrapped.pt"):
        loaded = MODELS.build(dict(config, weights=str(tmp_path / name))).state_dict()
        assert all(torch.equal(value, loaded[key]) for key, value in model.state_dict().items())


def test_two_tensors_for_one_name_are_refused(model, tmp_path):
    state = {
        "lang_encoder.model.layers.1.gated_cross_attn_layer.attn_gate": torch.ones(1),
        "lang_encoder.gated_cross_attn_layers.1.attn_gate": torch.zeros(1),
    }
    with pytest.raises(ValueError, match="x.pt holds two different tensors for language.model.model.layers.1.gated"):
        our_names(model, state, "x.pt")
