"""The parts of a base: written, loaded, and refused when they do not fit."""

import json

import pytest
import torch
from mmengine.logging import MMLogger
from safetensors.torch import load_file, save_file

from mmgpt.engine.checkpoint import load_trainable
from mmgpt.engine.trainable import trainable_state
from mmgpt.models.weights.names import our_names
from mmgpt.models.weights.writer import save_language, save_openflamingo, save_parts, save_vision
from mmgpt.registry import MODELS
from tests.models.test_flamingo import batch
from tests.models.test_language import as_untied


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


def test_files_of_openflamingo_v2_load(tiny_v2, tiny_flamingo_config, tmp_path):
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


def test_what_was_loaded_is_logged(model, tiny_flamingo_config, tmp_path, caplog):
    save_parts(model, str(tmp_path / "flamingo.safetensors"))
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    MODELS.build(dict(tiny_flamingo_config, weights=str(tmp_path / "flamingo.safetensors")))
    logger.removeHandler(caplog.handler)
    line = next(line for line in caplog.messages if "loaded" in line and "flamingo.safetensors" in line)
    blocks = sum(".gated." in name for name in model.state_dict())
    assert f"loaded {blocks} of gated blocks" in line and "of perceiver" in line and "of language" in line


def test_saving_a_language_model_whose_own_names_hold_decoder(tiny_llama, tiny_flamingo_config, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer, OPTConfig, OPTForCausalLM

    sizes = dict(hidden_size=32, ffn_dim=64, num_hidden_layers=4, num_attention_heads=4, word_embed_proj_dim=32)
    folder = tmp_path / "opt"
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    OPTForCausalLM(OPTConfig(**sizes, vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = MODELS.build(dict(tiny_flamingo_config, language=dict(path=str(folder))))
    save_language(model, str(tmp_path / "saved"), torch.float32)
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(info.values())


def test_a_base_of_two_tables_whose_config_says_tied_is_saved_with_two(tiny_llama, tiny_flamingo_config, tmp_path):
    folder, _ = as_untied(tiny_llama, tmp_path / "two", tie_word_embeddings=True)
    model = MODELS.build(dict(tiny_flamingo_config, language=dict(path=folder))).eval()
    save_language(model, str(tmp_path / "saved"), torch.float32)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["tie_word_embeddings"] is False
    loaded = MODELS.build(dict(tiny_flamingo_config, language=dict(path=str(tmp_path / "saved")))).eval()
    tables = [
        (m.language.get_input_embeddings().weight, m.language.get_output_embeddings().weight) for m in (model, loaded)
    ]
    assert all(torch.equal(before, after) for before, after in zip(*tables, strict=True))


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
    save_parts(model, str(tmp_path / "flamingo.safetensors"))
    state = load_file(tmp_path / "flamingo.safetensors")
    assert state["perceiver.latents"].dtype == torch.float16  # which is cast
    torch.save({**state, "perceiver.latents": change(state["perceiver.latents"])}, file)
    with pytest.raises(ValueError, match=f"flamingo.pt does not belong to the model .*\n.*{words}"):
        MODELS.build(dict(tiny_flamingo_config, weights=str(file)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_checkpoint_with_bad_values_is_refused(tiny_flamingo_config, tmp_path, bad):
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
