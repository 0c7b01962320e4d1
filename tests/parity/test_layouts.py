"""Published files in every layout: imported, written back, exported and merged, and refused where they do not fit."""

import json
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader
from peft import PeftModel
from safetensors.torch import load_file

import mmgpt.engine.checkpoint  # noqa: F401 registers how MMEngine reads files
from mmgpt.apis import build_model
from mmgpt.apis.export import export, merge
from mmgpt.cli import load_config
from mmgpt.models.weights.reader import read_weights, state_and_tuning
from mmgpt.models.weights.trainable import checked_state, load_trainable, trainable_state
from mmgpt.models.weights.writer import save_mmgpt_lora, save_openflamingo
from mmgpt.registry import MODELS
from tests.helpers.parity_data import PARITY
from tests.helpers.parity_models import (
    ACTIVATIONS,
    CHECKOUT,
    assert_close,
    batch_of,
    build_flamingo,
    build_lora,
    built,
    expected_arrays,
    expected_json,
    flamingo_config,
    image_counts,
    image_tokens,
    lora_config,
)

LORA_FILES = sorted(path.name for path in PARITY.glob("lora/*.pt"))


@pytest.fixture
def config(tmp_path):
    """A config file of the reference model, as an experiment's."""
    [tower] = PARITY.glob("clip/*.json")
    size = json.loads(tower.read_text())["vision_cfg"]["image_size"]
    flamingo = flamingo_config()
    values = dict(
        language_model=flamingo["language"]["path"],
        flamingo_weights=flamingo["weights"],
        model=dict(type="LoRAModel", module=flamingo, lora=lora_config()),
        chat_pipeline=[
            dict(type="PrepareImages", size=size, mean=[0.5] * 3, std=[0.25] * 3),
            dict(type="FormatPrompt", template="instruction", open_last=True),
            dict(type="TokenizeSegments", tokenizer=flamingo["language"]["path"], max_length=512),
        ],
    )
    Config(values).dump(tmp_path / "experiment.py")
    return tmp_path / "experiment.py"


def equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def logits(model):
    """Logits of a case with images."""
    cases = expected_json("logits_cases").values()
    case = next(case for case in cases if case["images"] and image_counts(case) == image_tokens(case))
    with torch.no_grad():
        return model(**batch_of(case))


@pytest.mark.parametrize("name", LORA_FILES)
def test_every_lora_layout_gives_the_same_tensors(name):
    model = MODELS.build(dict(type="LoRAModel", module=flamingo_config(), lora=lora_config()))
    load_trainable(model, PARITY / "lora" / name)
    assert equal(trainable_state(model), trainable_state(built("lora")))
    # As load_from, MMEngine reads the file.
    content = CheckpointLoader.load_checkpoint(str(PARITY / "lora" / name), "cpu")
    assert equal(checked_state(model, content, name), trainable_state(model))


@pytest.mark.parametrize("key", ["r", "lora_alpha"])
def test_another_rank_or_scale_is_refused(key):
    other = lora_config()[key] + 1
    model = MODELS.build(dict(type="LoRAModel", module=flamingo_config(), lora={**lora_config(), key: other}))
    with pytest.raises(ValueError, match=rf"was trained with lora_\w+=\d+, this config has lora.{key}={other}"):
        load_trainable(model, PARITY / "lora" / "final_weights.pt")


def test_another_layer_interval_is_refused():
    config = flamingo_config()
    every = config["gated"]["every_n_layers"]
    with pytest.raises(ValueError, match="(?s)does not belong.*gated blocks stand before the layers .*every_n_layers"):
        MODELS.build({**config, "gated": {**config["gated"], "every_n_layers": every // 2 or 2}})


def test_lora_is_no_base_and_a_base_no_lora():
    with pytest.raises(ValueError, match="are missing in it"):
        MODELS.build(flamingo_config() | {"weights": str(PARITY / "lora" / "bare_state_dict.pt")})
    with pytest.raises(ValueError, match="are missing in it"):
        load_trainable(built("lora"), PARITY / "flamingo" / "checkpoint.pt")


def test_back_to_the_published_layouts(tmp_path):
    save_openflamingo(build_flamingo(), str(tmp_path / "checkpoint.pt"))
    theirs = read_weights(PARITY / "flamingo" / "checkpoint.pt")
    assert equal(read_weights(tmp_path / "checkpoint.pt"), theirs)
    save_mmgpt_lora(build_lora(), str(tmp_path / "final_weights.pt"))
    ours, tuning = state_and_tuning(read_weights(tmp_path / "final_weights.pt"), "ours")
    theirs, expected = state_and_tuning(read_weights(PARITY / "lora" / "final_weights.pt"), "theirs")
    assert equal(ours, theirs)
    assert {**tuning, "lora_target_modules": set(tuning["lora_target_modules"])} == {
        **expected,
        "lora_target_modules": set(expected["lora_target_modules"]),
    }


def test_an_exported_folder_loads_as_it_was_and_its_adapter_in_peft_alone(config, tmp_path):
    cfg = load_config(config)
    model = build_model(cfg, PARITY / "lora" / "app_layout.pt", "cpu")
    export(cfg, model, tmp_path / "exported")
    again = build_model(load_config(tmp_path / "exported"), tmp_path / "exported", "cpu")
    assert equal(trainable_state(again), trainable_state(model))
    expected = logits(model)
    assert torch.equal(logits(again), expected)
    alone = PeftModel.from_pretrained(MODELS.build(flamingo_config()), tmp_path / "exported" / "adapter").eval()
    assert torch.equal(logits(alone), expected)
    with pytest.raises(ValueError, match="exported exists already"):
        export(cfg, model, tmp_path / "exported")


def test_a_merged_model_answers_the_same(config, tmp_path):
    cfg = load_config(config)
    model = build_model(cfg, PARITY / "lora" / "app_layout.pt", "cpu")
    expected = logits(model)
    with pytest.raises(ValueError, match="more than the bound of 0"):
        merge(cfg, model, tmp_path / "merged", bound=0.0)
    assert not (tmp_path / "merged").exists()
    model = build_model(cfg, PARITY / "lora" / "app_layout.pt", "cpu")
    assert merge(cfg, model, tmp_path / "merged", bound=1e-4) < 1e-4
    merged = build_model(load_config(tmp_path / "merged"), device="cpu")
    assert not any("lora" in name for name in merged.state_dict())
    assert_close(logits(merged), expected, 1e-4)


def run(monkeypatch, *arguments):
    monkeypatch.syspath_prepend(CHECKOUT / "tools" / "model_converters")
    import weights

    monkeypatch.setattr(sys, "argv", ["weights.py", *map(str, arguments)])
    weights.main()


def test_the_tool_imports_and_publishes(config, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "import", config, PARITY / "flamingo" / "checkpoint_alias.pt", tmp_path / "base.safetensors")
    ours = MODELS.build(flamingo_config() | {"weights": str(tmp_path / "base.safetensors")}).state_dict()
    assert equal(ours, MODELS.build(flamingo_config()).state_dict())
    run(monkeypatch, "import", config, PARITY / "lora" / "checkpoint_0.pt", tmp_path / "lora.pth")
    run(monkeypatch, "publish", config, tmp_path / "lora.pth", tmp_path / "published")
    bare = read_weights(PARITY / "lora" / "bare_state_dict.pt")
    assert equal(read_weights(tmp_path / "published" / "final_weights.pt")["model_state_dict"], bare)
    base = read_weights(PARITY / "flamingo" / "checkpoint.pt")
    assert equal(read_weights(tmp_path / "published" / "checkpoint.pt"), base)
    run(monkeypatch, "export", config, tmp_path / "lora.pth", tmp_path / "exported")
    assert len(load_file(tmp_path / "exported" / "adapter" / "adapter_model.safetensors")) == len(bare)
    run(monkeypatch, "merge", config, tmp_path / "lora.pth", tmp_path / "merged", "--bound", "1e-4")
    run(monkeypatch, "list", config)
    printed = capsys.readouterr().out
    assert "largest difference of a logit" in printed
    assert sum(".lora_" in line for line in printed.splitlines()) == len(bare)


def test_the_head_of_the_reference_is_only_new_in_its_last_rows():
    """The published code draws the added output rows anew at each load; ours are the mean of the others."""
    ours = MODELS.build(flamingo_config()).language.get_output_embeddings().weight
    theirs = built("base").language.get_output_embeddings().weight
    added = len(built("base").tokenizer) - json.loads((PARITY / "llama" / "config.json").read_text())["vocab_size"]
    assert torch.equal(ours[:-added], theirs[:-added])
    assert_close(ours[-added:], ours[:-added].mean(dim=0).expand(added, -1), ACTIVATIONS)


def test_expected_logits_do_not_depend_on_the_layout():
    """Through the alias and a nested file with `module.`, the reference's numbers."""
    model = MODELS.build(
        dict(type="LoRAModel", module=flamingo_config(weights="checkpoint_alias.pt"), lora=lora_config())
    ).eval()
    model.module.language.get_output_embeddings().weight.data = (
        built("base").language.get_output_embeddings().weight.data
    )
    load_trainable(model, PARITY / "lora" / "checkpoint_0.pt")
    for name, case in expected_json("logits_cases").items():
        if image_counts(case) == image_tokens(case) and not case["attend_previous"]:
            text = torch.tensor(case["attention_mask"]) == 1
            with torch.no_grad():
                ours = model(**batch_of(case))
            assert_close(ours[text], expected_arrays("logits_lora")[name][text], ACTIVATIONS, name)
