"""tools/model_converters/weights.py without published files; for those see tests/parity/test_layouts.py."""

import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file

from mmgpt.models.weights.names import new_tensors
from mmgpt.models.weights.reader import read_weights
from mmgpt.models.weights.trainable import trainable_state
from mmgpt.registry import MODELS

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def run(monkeypatch):
    """A function that runs the tool with some arguments."""
    monkeypatch.syspath_prepend(TOOLS / "model_converters")

    def call(*arguments):
        import weights

        monkeypatch.setattr(sys, "argv", ["weights.py", *map(str, arguments)])
        weights.main()

    return call


@pytest.fixture
def pretrained(tiny_flamingo_config, tmp_path):
    """Config file and checkpoint of a Flamingo whose language model was trained too."""
    model_config = {**tiny_flamingo_config, "frozen": ["vision"]}
    Config(dict(model=model_config)).dump(tmp_path / "pretrain.py")
    torch.manual_seed(5)
    model = MODELS.build(model_config)
    torch.save({"state_dict": trainable_state(model), "meta": {}}, tmp_path / "latest.pth")
    return tmp_path / "pretrain.py", tmp_path / "latest.pth", model


def test_base_writes_the_trained_components(run, pretrained, tiny_flamingo_config, tmp_path, capsys):
    config, checkpoint, model = pretrained
    run("base", config, checkpoint, tmp_path / "base")
    base = dict(
        language=dict(path=str(tmp_path / "base/language")), weights=str(tmp_path / "base/flamingo.safetensors")
    )
    again = MODELS.build(tiny_flamingo_config | base).state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())
    assert f"written: {tmp_path / 'base'}" in capsys.readouterr().out
    run("base", config, checkpoint, tmp_path / "half", "--dtype", "float16")
    for file in ("flamingo.safetensors", "language/model.safetensors"):
        assert {value.dtype for value in load_file(tmp_path / "half" / file).values()} == {torch.float16}


def test_base_writes_no_frozen_language_model_and_over_no_file(run, tiny_flamingo_config, tmp_path):
    """Beside a bfloat16 language model, the trained tensors are in float32."""
    language, gated = tiny_flamingo_config["language"], tiny_flamingo_config["gated"]
    config, checkpoint, out = tmp_path / "pretrain.py", tmp_path / "latest.pth", tmp_path / "base"
    changes = dict(language=dict(language, dtype="bfloat16"), gated=dict(gated, dtype="float32"))
    Config(dict(model=tiny_flamingo_config | changes)).dump(config)
    model = MODELS.build(tiny_flamingo_config | changes)
    torch.save({"state_dict": trainable_state(model), "meta": {}}, checkpoint)
    (out / "language").mkdir(parents=True)
    (out / "language" / "config.json").write_text("the user's")
    run("base", config, checkpoint, out)
    written = load_file(out / "flamingo.safetensors")
    assert written.keys() == new_tensors(model).keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in written.items())
    assert {value.dtype for value in written.values()} == {torch.float32}
    with pytest.raises(ValueError, match="base/flamingo.safetensors exists already"):
        run("base", config, checkpoint, out)
    assert [path.name for path in (out / "language").iterdir()] == ["config.json"]
    trained = {**tiny_flamingo_config, **changes, "frozen": ["vision"]}
    Config(dict(model=trained)).dump(config)
    torch.save({"state_dict": trainable_state(MODELS.build(trained)), "meta": {}}, checkpoint)
    (out / "flamingo.safetensors").unlink()
    with pytest.raises(ValueError, match="base/language exists already"):
        run("base", config, checkpoint, out)
    assert not (out / "flamingo.safetensors").exists()


def test_base_of_a_language_model_with_invalid_generation_settings(run, base_saying, tiny_flamingo_config, tmp_path):
    """With transformers 5.17, save_pretrained refused them after all weights were read."""
    settings = dict(temperature=0.9, top_p=0.6, num_return_sequences=3, repetition_penalty=1.3, eos_token_id=1)
    model_config = {**tiny_flamingo_config, "language": dict(path=base_saying(settings)), "frozen": ["vision"]}
    Config(dict(model=model_config)).dump(tmp_path / "pretrain.py")
    torch.save({"state_dict": trainable_state(MODELS.build(model_config)), "meta": {}}, tmp_path / "latest.pth")
    run("base", tmp_path / "pretrain.py", tmp_path / "latest.pth", tmp_path / "written")
    written = json.loads((tmp_path / "written" / "language" / "generation_config.json").read_text())
    assert (written["eos_token_id"], written["repetition_penalty"]) == ([2, 1], 1.3)
    assert not {"temperature", "top_p", "num_return_sequences"} & set(written)


def test_base_has_the_trained_image_encoder(run, tiny_flamingo_config, tmp_path):
    model_config = {**tiny_flamingo_config, "frozen": []}
    Config(dict(model=model_config)).dump(tmp_path / "pretrain.py")
    model = MODELS.build(model_config)
    for parameter in model.vision.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save({"state_dict": trainable_state(model), "meta": {}}, tmp_path / "latest.pth")
    run("base", tmp_path / "pretrain.py", tmp_path / "latest.pth", tmp_path / "base")
    again = MODELS.build({**tiny_flamingo_config, "weights": str(tmp_path / "base/flamingo.safetensors")}).vision
    for name, value in model.vision.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-3, atol=1e-3)


def test_base_of_a_model_with_lora_is_refused(run, tiny_flamingo_config, tmp_path):
    model_config = dict(type="LoRAModel", module=tiny_flamingo_config, lora=dict(target_modules=["q_proj"]))
    Config(dict(model=model_config)).dump(tmp_path / "tuned.py")
    with pytest.raises(ValueError, match="tuned.py has LoRA, which a base cannot hold: merge it"):
        run("base", tmp_path / "tuned.py", "no such checkpoint", tmp_path / "base")


def test_a_model_without_lora_is_published(run, pretrained, tmp_path):
    config, checkpoint, model = pretrained
    run("publish", config, checkpoint, tmp_path / "published")
    state = read_weights(tmp_path / "published" / "checkpoint.pt")
    latents = model.state_dict()["perceiver.latents"]
    assert torch.equal(state["perceiver.latents"], latents)
    assert not (tmp_path / "published" / "final_weights.pt").exists()


def test_an_existing_folder_is_refused_before_anything_is_loaded(run, pretrained, tmp_path):
    config, _, _ = pretrained
    for command in ("export", "merge"):
        with pytest.raises(ValueError, match="exists already: choose a new folder"):
            run(command, config, "no such checkpoint", tmp_path)


def test_list_gives_the_trained_tensors_of_a_base(run, pretrained, capsys):
    config, _, model = pretrained
    run("list", config)
    *lines, last = capsys.readouterr().out.splitlines()
    trained = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    assert {f"{name} {shape}" for name, shape in trained.items()} <= set(lines)
    assert last == (
        f"{sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} of them trainable"
    )


def test_list_names_the_file_that_it_needs(run, tmp_path):
    options = ("--cfg-options", f"language_model={tmp_path}")
    with pytest.raises(FileNotFoundError, match="config.json is missing: the sizes of the language model"):
        run("list", Path(__file__).parents[2] / "configs" / "mmgpt" / "lora_joint.py", *options)


def test_inspect_prints_the_report(run, tiny_llama, capsys):
    run("inspect", tiny_llama)
    printed = capsys.readouterr().out
    assert "Language model\n  family           llama (LlamaForCausalLM)" in printed
    assert "Special tokens\n" in printed
    assert "'</s>' (2); 3 files agree" in printed


def test_from_gguf_passes_its_arguments_on(run, monkeypatch, tmp_path, capsys):
    import weights

    calls = []
    monkeypatch.setattr(weights, "convert_gguf", lambda *arguments: calls.append(arguments))
    run("from-gguf", "model.gguf", tmp_path / "out", "--dtype", "bfloat16")
    assert calls == [("model.gguf", str(tmp_path / "out"), "bfloat16")]
    assert f"written: {tmp_path / 'out'}" in capsys.readouterr().out
