import pytest
from torch import nn

from mmgpt.engine.hooks.throughput import token_flops
from tests.helpers.launching import logs
from tests.helpers.stub_faults import FAULTY


def test_token_flops_of_trainable_and_frozen_parameters():
    model = nn.Module()
    model.language, model.vision = nn.Module(), nn.Linear(100, 100)
    model.language.table = nn.Embedding(50, 10).requires_grad_(False)
    model.language.get_input_embeddings = lambda: model.language.table
    model.language.layer = nn.Linear(10, 10, bias=False).requires_grad_(False)
    model.language.lora = nn.Linear(10, 2, bias=False)
    assert token_flops(model) == 4 * 100 + 6 * 20


def test_token_flops_of_a_tuned_model(tuned):
    language = tuned.module.language
    expected = sum(weight.numel() * (6 if weight.requires_grad else 4) for weight in language.parameters())
    assert token_flops(tuned) == expected - 4 * language.get_input_embeddings().weight.numel()


def test_throughput_is_logged(make_runner, tmp_path, monkeypatch):
    monkeypatch.setattr("mmgpt.engine.hooks.throughput.peak_flops", lambda device: 1000.0)
    runner = make_runner(FAULTY)
    runner.train()
    seconds = runner.message_hub.get_scalar("train/time").data[0]
    last = {name: runner.message_hub.get_scalar(f"train/{name}").current() for name in ("samples_per_s", "mfu")}
    assert last["samples_per_s"] == pytest.approx(2 * 12 / seconds.sum())
    # 8 + 5 trained parameters, 5 tokens a sample.
    assert last["mfu"] == pytest.approx(5 * last["samples_per_s"] * (6 * 13 + 4 * 16) / 1000)
    text = logs(tmp_path / "run")
    assert "tokens_per_s: " in text
    assert "loss_stub: " in text
    assert "grad_norm: " in text
    assert "eta: " in text
