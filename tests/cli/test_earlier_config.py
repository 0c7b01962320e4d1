"""A config of the release before, in today's code: the same model and data, and a warning for each old name."""

import json
from pathlib import Path

import pytest

from mmgpt.cli import load_config
from mmgpt.compat import names

ROOT = Path(__file__).parents[2]
# Arguments that transforms got since, whose values change nothing.
SINCE = dict(FormatPrompt=("tokenizer", "system"), TokenizeSegments=("add_bos_token",))
EARLIER = Path(__file__).parent / "data" / "earlier"


@pytest.fixture
def warnings(monkeypatch):
    texts = []
    monkeypatch.setattr(names, "print_log", lambda text, *_: texts.append(text))
    return texts


@pytest.fixture
def config(tmp_path):
    """The config file, beside which the release had lora_joint.py."""
    text = (EARLIER / "config.py").read_text().replace("./lora_joint.py", f"{ROOT}/configs/mmgpt/lora_joint.py")
    (tmp_path / "earlier.py").write_text(text)
    return tmp_path / "earlier.py"


def without_new(value):
    if isinstance(value, dict):
        new = SINCE.get(value.get("type"), ())
        return {key: without_new(item) for key, item in value.items() if key not in new}
    return [without_new(item) for item in value] if isinstance(value, (list, tuple)) else value


def test_a_config_of_the_release_before_builds_the_same(config, warnings):
    """config.json holds what that release's `load_config` made of config.py."""
    expected = names.with_present_names(json.loads((EARLIER / "config.json").read_text()), "config.json")
    cfg = load_config(config).to_dict()
    # Since then, chat has the language model's length limit.
    assert expected["chat_pipeline"][-1].pop("max_length") == cfg["max_length"]
    assert cfg["chat_pipeline"][-1].pop("max_length") is None
    # JSON knows no tuples.
    assert json.loads(json.dumps({name: without_new(cfg[name]) for name in expected})) == expected


def test_a_config_of_the_release_before_is_warned_of(config, warnings):
    cfg = load_config(config)
    text = "\n".join(warnings)
    for words in (
        "'weight_decay' is 'optim_wrapper.optimizer.weight_decay' now",
        "'train_tokens' is 'model.train_tokens' now",
        "'eval_okvqa' is 'test_dataloader.dataset' now",
        "'needed' is 'dict(path=..., source=...)' now",
        "sizes without effect; sizes are read from the config files of the language model and the image encoder now",
    ):
        assert words in text
    assert cfg.sources["/big/llama-7b_hf"] == "LLaMA-7B, from the shelf"


def test_options_of_the_release_before(config, warnings):
    options = {"weight_decay": 0.2, "eval_okvqa.sample": 7, "tracker": "tensorboard", "style": "instruction"}
    cfg = load_config(config, options)
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.2
    assert cfg.test_dataloader.dataset.sample == 7
    assert [backend.type for backend in cfg.visualizer.vis_backends] == ["LocalVisBackend", "TensorboardVisBackend"]
    assert cfg.model.module.generation.max_new_tokens == 128
    for option in ("sizes.language.num_hidden_layers", "track_wandb", "length_vqa"):
        with pytest.raises(KeyError, match=f"--cfg-options {option}: the config has no .*; .* (now|instead)"):
            load_config(ROOT / "configs" / "mmgpt" / "lora_joint.py", {option: 1})


def test_a_variable_of_a_users_own_keeps_its_name(tmp_path, warnings):
    path = tmp_path / "mine.py"
    path.write_text("weight_decay = 0.3\noptimizer = dict(decay='${weight_decay}')\ntrain_tokens = 5")
    assert load_config(path).to_dict() == dict(weight_decay=0.3, optimizer=dict(decay=0.3), train_tokens=5)
    assert not warnings


def test_a_config_that_refers_to_a_variable_of_the_release_before(tmp_path, warnings):
    path = tmp_path / "mine.py"
    optimizer = 'dict(_delete_=True, type="SGD", lr="${lr}", weight_decay="${weight_decay}")'
    path.write_text(f"_base_ = '{ROOT}/configs/mmgpt/lora_joint.py'\noptim_wrapper = dict(optimizer={optimizer})\n")
    assert load_config(path).optim_wrapper.optimizer == dict(type="SGD", lr=1e-5, weight_decay=0.1)
