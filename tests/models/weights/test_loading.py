"""Strict loading of a file's tensors into a model."""

import pytest
import torch
from mmengine.logging import MMLogger
from safetensors.torch import load_file, save_file

from mmgpt.models.weights.trainable import load_trainable, trainable_state
from mmgpt.models.weights.writer import save_components
from mmgpt.registry import MODELS


def test_loading_logs_the_tensors_of_each_component(model, tiny_flamingo_config, tmp_path, caplog):
    save_components(model, str(tmp_path / "flamingo.safetensors"))
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    MODELS.build(dict(tiny_flamingo_config, weights=str(tmp_path / "flamingo.safetensors")))
    logger.removeHandler(caplog.handler)
    line = next(line for line in caplog.messages if "loaded" in line and "flamingo.safetensors" in line)
    blocks = sum(".gated." in name for name in model.state_dict())
    assert f"loaded {blocks} of gated blocks" in line
    assert "of perceiver" in line
    assert "of language" in line


def test_a_file_that_does_not_fit_is_refused(model, tiny_flamingo_config, tmp_path):
    path = tmp_path / "flamingo.safetensors"
    save_components(model, str(path))
    state = load_file(path)
    latents = state.pop("perceiver.latents")
    save_file(state, path)
    with pytest.raises(ValueError, match="(?s)flamingo.safetensors .* 1 are missing in it: perceiver.lat"):
        MODELS.build(dict(tiny_flamingo_config, weights=str(path)))
    save_file(state | {"perceiver.latents": latents[:2], "perceiver.eyes": latents.clone()}, path)
    with pytest.raises(ValueError, match=r"(?s)not in the model: perceiver.eyes.* \(2, 32\) instead of \(4, 32\)"):
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


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda value: value.to(torch.int32), "perceiver.latents integers instead of floats"),
        (lambda value: value > 0, "perceiver.latents bools instead of floats"),
        (lambda value: value.to(torch.complex64), "perceiver.latents complex numbers instead of floats"),
        (lambda value: value.to(torch.float8_e4m3fn), "perceiver.latents torch.float8_e4m3fn instead of floats"),
        (lambda value: value.to_sparse(), "perceiver.latents torch.sparse_coo values instead of floats"),
        (lambda value: value.to("meta"), "perceiver.latents no values instead of floats"),
        (lambda value: value * float("nan"), "1 hold NaN or infinite values: perceiver.latents"),
        (lambda value: value.double() * 1e300, "1 hold NaN or infinite values: perceiver.latents"),
    ],
    ids=["integers", "bools", "complex", "bytes", "sparse", "meta", "NaN", "too large"],
)
def test_values_that_a_model_cannot_hold_are_refused(model, tiny_flamingo_config, tmp_path, change, words):
    file = tmp_path / "flamingo.pt"
    save_components(model, str(tmp_path / "flamingo.safetensors"), torch.float16)
    state = load_file(tmp_path / "flamingo.safetensors")
    assert state["perceiver.latents"].dtype == torch.float16  # which is cast
    torch.save({**state, "perceiver.latents": change(state["perceiver.latents"])}, file)
    with pytest.raises(ValueError, match=f"flamingo.pt does not belong to the model .*\n.*{words}"):
        MODELS.build(dict(tiny_flamingo_config, weights=str(file)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_checkpoint_with_nan_or_integers_is_refused(tiny_flamingo_config, tmp_path, bad):
    lora = dict(type="LoRAModel", module=tiny_flamingo_config, lora=dict(r=2, target_modules=["q_proj"]))
    tuned = MODELS.build(lora)
    state = {name: value.clone() for name, value in trainable_state(tuned).items()}
    name = next(iter(state))
    state[name][0, 0] = bad
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "latest.pth")
    with pytest.raises(ValueError, match=f"latest.pth does not belong .*\n.*NaN or infinite values: {name}"):
        load_trainable(tuned, tmp_path / "latest.pth")
    state[name] = state[name].new_zeros(state[name].shape).long()
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "latest.pth")
    with pytest.raises(ValueError, match=f"{name} integers instead of floats"):
        load_trainable(tuned, tmp_path / "latest.pth")


def test_embeddings_of_tiles_begin_at_zero_where_the_weights_have_none(model, tiny_flamingo_config, tmp_path):
    path = str(tmp_path / "flamingo.safetensors")
    save_components(model, path)
    config = dict(tiny_flamingo_config, perceiver=dict(tiny_flamingo_config["perceiver"], max_tiles=2))
    tiled = MODELS.build(dict(config, weights=path))
    assert tiled.perceiver.frame_embs.shape == (5, 32)
    assert not tiled.perceiver.frame_embs.any()
    assert torch.equal(tiled.perceiver.latents, model.perceiver.latents)
    torch.nn.init.normal_(tiled.perceiver.frame_embs)
    save_components(tiled, path)
    again = MODELS.build(dict(config, weights=path))
    assert torch.equal(again.perceiver.frame_embs, tiled.perceiver.frame_embs)
    with pytest.raises(ValueError, match="not in the model: perceiver.frame_embs"):
        MODELS.build(dict(tiny_flamingo_config, weights=path))
