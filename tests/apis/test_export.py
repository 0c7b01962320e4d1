"""Exported folders: what is in them, that they load as they were, and what is refused."""

import json

import pytest
import torch
from mmengine.config import Config

from mmgpt.apis import Chat, build_model
from mmgpt.apis.build import find_config
from mmgpt.apis.export import export, merge
from mmgpt.engine import load_config
from mmgpt.engine.trained import trained_state
from mmgpt.models import LoRAModel

LORA = dict(r=2, lora_alpha=4, target_modules=["q_proj", "to_q", "ff.1"], exclude_modules=r"(vision|perceiver)\..*")


@pytest.fixture
def experiment(tiny_llama, tiny_clip, tiny_flamingo_config, tmp_path):
    """A function that gives config and model with random, tuned weights; arguments change the LoRAModel's config."""

    def make(**changes):
        vision = dict(type="OpenCLIPVision", path="${vision_model}")
        flamingo = {**tiny_flamingo_config, "vision": vision, "language": dict(path="${language_model}")}
        values = dict(
            language_model=tiny_llama,
            vision_model=tiny_clip,
            model={"type": "LoRAModel", "module": flamingo, "lora": LORA, **changes},
            chat_pipeline=[
                dict(type="PrepareImages", size=32, mean=[0.1, 0.2, 0.3], std=[0.4] * 3),
                dict(type="FormatPrompt", template="short", open_last=True),
                dict(type="TokenizeSegments", tokenizer="${language_model}", max_length=128),
            ],
            default_scope="mmgpt",
        )
        Config(values).dump(tmp_path / "experiment.py")
        cfg = load_config(tmp_path / "experiment.py")
        torch.manual_seed(1)
        model = build_model(cfg, device="cpu")
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
        return cfg, model

    return make


def answer(chat):
    return chat.ask(chat.start(), "what is the shape")


@pytest.mark.parametrize(
    "changes",
    [{}, dict(lora=dict(LORA, use_dora=True)), dict(train_tokens=["<image>"])],
    ids=["LoRA", "DoRA", "tokens"],
)
def test_a_folder_loads_as_it_was(experiment, tmp_path, changes):
    cfg, model = experiment(**changes)
    export(cfg, model, tmp_path / "out")
    again = build_model(load_config(tmp_path / "out" / "config.py"), tmp_path / "out", "cpu")
    before, after = trained_state(model), trained_state(again)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not list(tmp_path.glob("*.part"))


def test_an_empty_description_of_the_adapter_is_told(experiment, tmp_path):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    (tmp_path / "out" / "adapter" / "adapter_config.json").write_text("")
    with pytest.raises(ValueError, match="out/adapter/adapter_config.json is not valid JSON: it is empty"):
        build_model(cfg, tmp_path / "out", "cpu")


def test_a_model_without_lora_is_exported_too(experiment, tmp_path):
    cfg, model = experiment()
    cfg.model = {**cfg.model.module, "frozen": ["vision", "language"]}
    plain = build_model(cfg, device="cpu")
    export(cfg, plain, tmp_path / "out")
    again = build_model(load_config(tmp_path / "out" / "config.py"), tmp_path / "out", "cpu")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in trained_state(plain).items())
    export(load_config(tmp_path / "experiment.py"), model, tmp_path / "tuned")
    with pytest.raises(ValueError, match="tuned holds LoRA weights, but the model of this config has no LoRA"):
        build_model(cfg, tmp_path / "tuned", "cpu")


def test_a_merged_bfloat16_model_is_the_one_that_was_compared(experiment, tmp_path, tiny_llama):
    cfg, _ = experiment()
    cfg.model.module.language = dict(path=tiny_llama, dtype="bfloat16")
    torch.manual_seed(1)
    model = build_model(cfg, device="cpu")
    merge(cfg, model, tmp_path / "out", bound=0.2)
    merged, again = (
        model.peft.get_base_model().state_dict(),
        build_model(load_config(tmp_path / "out" / "config.py"), device="cpu").state_dict(),
    )
    assert merged.keys() == again.keys() and all(torch.equal(merged[name], again[name]) for name in merged)


def test_what_a_folder_says(experiment, tmp_path):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    kept = Config.fromfile(tmp_path / "out" / "config.py")
    assert kept.language_model == cfg.language_model and kept.model.module.language.path == "${language_model}"
    assert kept.chat_pipeline[2].tokenizer == "${language_model}"
    images = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert images["crop_size"] == {"height": 32, "width": 32} and images["image_mean"] == [0.1, 0.2, 0.3]
    adapter = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (2, 4)
    assert not (tmp_path / "out" / "trained.safetensors").exists()


def test_one_call_and_a_moved_base(experiment, tmp_path, tiny_llama):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    options = {"language_model": tiny_llama}
    chat = Chat.from_config(tmp_path / "out", device="cpu", options=options, merge=False)
    assert isinstance(chat.model, LoRAModel)
    merged = Chat.from_config(tmp_path / "out", device="cpu", options=options)
    assert not isinstance(merged.model, LoRAModel) and answer(merged) == answer(chat)
    assert find_config(tmp_path / "out") == (tmp_path / "out" / "config.py", tmp_path / "out")
    assert find_config("some/config.py")[1] is None


def test_a_merged_folder_needs_no_adapter(experiment, tmp_path):
    cfg, model = experiment()
    merge(cfg, model, tmp_path / "out", bound=1e-4)
    chat = Chat.from_config(tmp_path / "out", device="cpu")
    assert not any("lora" in name for name in chat.model.state_dict())
    assert chat.model.language.model.config.name_or_path == str(tmp_path / "out" / "language")
    assert find_config(tmp_path / "out")[1] is None


def test_a_base_with_another_tokenizer_is_refused(experiment, tmp_path):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    model.tokenizer.add_tokens(["extra"])
    model.tokenizer.save_pretrained(tmp_path / "out" / "tokenizer")
    with pytest.raises(ValueError, match="out was exported with another tokenizer .*extra"):
        Chat.from_config(tmp_path / "out", device="cpu")


def test_other_lora_settings_are_refused(experiment, tmp_path):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    cfg.model.lora.lora_alpha = 2
    with pytest.raises(ValueError, match="was trained with lora_alpha=4, this config has lora.lora_alpha=2"):
        build_model(cfg, tmp_path / "out", "cpu")


def test_what_cannot_be_exported(experiment, tmp_path):
    cfg, model = experiment()
    with pytest.raises(ValueError, match="a Flamingo has no LoRA updates to merge"):
        merge(cfg, model.module, tmp_path / "out", 1.0)
    with pytest.raises(ValueError, match="exists already"):
        export(cfg, model, tmp_path)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing in this model is trained"):
        export(cfg, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="no config.py"):
        find_config(tmp_path)
