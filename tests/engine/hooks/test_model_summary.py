import sys
from types import ModuleType, SimpleNamespace

import torch
from torch import nn

from mmgpt.engine.hooks.model_summary import model_summary
from tests.helpers.launching import logs
from tests.helpers.stub_faults import FAULTY


def rows(table):
    columns = [list(column.cells) for column in table.columns]
    return {row[0]: row[1:] for row in zip(*columns, strict=True)}


def test_summary_of_a_tuned_model(tuned):
    tuned.module.vision.bfloat16()
    table = rows(model_summary(tuned))
    assert set(table) == {"vision", "perceiver", "gated blocks", "language", "LoRA", "all"}
    lora = sum(weight.numel() for name, weight in tuned.named_parameters() if "lora_" in name)
    assert table["LoRA"] == (f"{lora:,}", f"{lora:,}", "0", "float32")
    assert table["vision"][1] == "0"
    assert table["vision"][3] == "bfloat16"
    assert table["all"][3] == "bfloat16, float32"
    total = sum(weight.numel() for weight in tuned.parameters())
    assert table["all"][0] == f"{total:,}"


def test_packed_4_bit_weights_count_unpacked():
    layer = nn.Linear(8, 8, bias=False)
    layer.weight = nn.Parameter(torch.zeros(32, 1, dtype=torch.uint8), requires_grad=False)
    layer.weight.quant_state = SimpleNamespace(shape=(8, 8))
    assert rows(model_summary(layer))["all"] == ("64", "0", "64", "uint8")


def test_the_summary_is_logged_once(make_runner, tmp_path):
    make_runner(max_epochs=1).train()
    assert logs(tmp_path / "run").count("Components of the model:") == 1


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
    assert first == "init"
    assert options["mode"] == "offline"
    assert last == "join"
    rows = [row for kind, row in calls if kind == "log"]
    assert len(rows) == 12
    assert {"loss_stub", "lr", "grad_norm", "tokens_per_s"} <= set(rows[0])
