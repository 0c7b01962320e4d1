import copy
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from mmgpt.cli import load_config
from mmgpt.engine.hooks.model_summary import model_summary
from mmgpt.engine.hooks.throughput import token_flops
from mmgpt.registry import MODELS
from tests.helpers.launching import logs
from tests.helpers.stub_faults import FAULTY


def rows(table):
    columns = [list(column.cells) for column in table.columns]
    return {row[0]: row[1:] for row in zip(*columns, strict=True)}


@pytest.fixture(scope="module")
def tuned(tiny_flamingo_config):
    module = copy.deepcopy(tiny_flamingo_config)
    return MODELS.build(dict(type="LoRAModel", module=module, lora=dict(r=2, target_modules=["q_proj"])))


def test_parts_of_a_tuned_model(tuned):
    tuned.module.vision.bfloat16()
    table = rows(model_summary(tuned))
    assert set(table) == {"vision", "perceiver", "gated blocks", "language", "LoRA", "all"}
    lora = sum(each.numel() for name, each in tuned.named_parameters() if "lora_" in name)
    assert table["LoRA"] == (f"{lora:,}", f"{lora:,}", "0", "float32")
    assert table["vision"][1] == "0" and table["vision"][3] == "bfloat16"
    assert table["all"][3] == "bfloat16, float32"
    every = sum(each.numel() for each in tuned.parameters())
    assert table["all"][0] == f"{every:,}"


def test_a_weight_in_4_bits_counts_what_it_stands_for():
    layer = nn.Linear(8, 8, bias=False)
    layer.weight = nn.Parameter(torch.zeros(32, 1, dtype=torch.uint8), requires_grad=False)
    layer.weight.quant_state = SimpleNamespace(shape=(8, 8))
    assert rows(model_summary(layer))["all"] == ("64", "0", "64", "uint8")


def test_operations_of_a_token():
    model = nn.Module()
    model.language, model.vision = nn.Module(), nn.Linear(100, 100)
    model.language.table = nn.Embedding(50, 10).requires_grad_(False)
    model.language.get_input_embeddings = lambda: model.language.table
    model.language.layer = nn.Linear(10, 10, bias=False).requires_grad_(False)
    model.language.lora = nn.Linear(10, 2, bias=False)
    assert token_flops(model) == 4 * 100 + 6 * 20


def test_operations_of_a_tuned_model(tuned):
    language = tuned.module.language
    expected = sum(each.numel() * (6 if each.requires_grad else 4) for each in language.parameters())
    assert token_flops(tuned) == expected - 4 * language.get_input_embeddings().weight.numel()


def test_speed_stands_in_the_log(make_runner, tmp_path, monkeypatch):
    monkeypatch.setattr("mmgpt.engine.hooks.throughput.peak_flops", lambda device: 1000.0)
    runner = make_runner(FAULTY)
    runner.train()
    seconds = runner.message_hub.get_scalar("train/time").data[0]
    last = {name: runner.message_hub.get_scalar(f"train/{name}").current() for name in ("samples_per_s", "mfu")}
    assert last["samples_per_s"] == pytest.approx(2 * 12 / seconds.sum())
    # 8 + 5 trained parameters, 5 tokens a sample.
    assert last["mfu"] == pytest.approx(5 * last["samples_per_s"] * (6 * 13 + 4 * 16) / 1000)
    text = logs(tmp_path / "run")
    assert "tokens_per_s: " in text and "loss_stub: " in text and "grad_norm: " in text and "eta: " in text
    assert text.count("The parts of the model:") == 1


def test_weights_and_biases_offline_by_config(make_runner, monkeypatch):
    wandb, calls = ModuleType("wandb"), []
    wandb.init = lambda **options: calls.append(("init", options))
    wandb.log = lambda row, **options: calls.append(("log", row))
    wandb.join = lambda: calls.append(("join", None))
    wandb.config = SimpleNamespace(update=lambda cfg, **options: None)
    wandb.run = SimpleNamespace(log_code=lambda **options: None)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    make_runner(FAULTY, tracker="wandb_offline").train()
    (first, options), *_, (last, _) = calls
    assert first == "init" and options["mode"] == "offline" and last == "join"
    rows = [row for kind, row in calls if kind == "log"]
    assert len(rows) == 12 and {"loss_stub", "lr", "grad_norm", "tokens_per_s"} <= set(rows[0])


def test_trackers_are_named():
    from tests.helpers.stub_training import CONFIGS

    names = {"files": 1, "tensorboard": 2, "wandb": 2, "wandb_offline": 2}
    for name, count in names.items():
        cfg = load_config(CONFIGS / "_base_" / "default_runtime.py", {"tracker": name})
        assert len(cfg.visualizer.vis_backends) == count
    with pytest.raises(KeyError, match="track_files, track_tensorboard, track_wandb"):
        load_config(CONFIGS / "_base_" / "default_runtime.py", {"tracker": "wandbb"})
