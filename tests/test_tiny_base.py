"""The committed base of the tiny experiment, its pretraining, and runs on it, one of them killed and resumed."""

import json
import time
from pathlib import Path

import pytest
import torch

from mmgpt.cli import load_config
from mmgpt.registry import MODELS
from tests.helpers.scripts import ROOT, run_script, started_script
from tests.test_experiments import CONFIGS, logged, tool

WORLD = ROOT / "projects" / "tiny_world" / "generate.py"
PRETRAINING = ROOT / "projects" / "tiny_world" / "configs"


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Folders of a small world and of a small pretraining set."""
    folder = tmp_path_factory.mktemp("worlds")
    small = ["--heldout-scenes", "12", "--workers", "1"]
    for name, more in {
        "tiny": ["--train-scenes", "60"],
        "pretrain": ["--train-scenes", "0", "--pretrain-scenes", "320"],
    }.items():
        run_script(WORLD, folder / name, *small, *more).check_returncode()
    return folder


@pytest.mark.parametrize(
    "config",
    [PRETRAINING / "tiny_pretrain.py", PRETRAINING / "tiny_pretrain_pairs.py", CONFIGS / "tiny_lora_joint.py"],
    ids=lambda path: path.stem,
)
def test_the_committed_base_has_the_shapes_of_its_configs(config, monkeypatch):
    monkeypatch.chdir(ROOT)
    new = MODELS.build(load_config(PRETRAINING / "tiny_pretrain.py").model).state_dict()
    cfg = load_config(config).model
    committed = MODELS.build(cfg.get("module", cfg)).state_dict()
    assert {k: v.shape for k, v in new.items()} == {k: v.shape for k, v in committed.items()}
    assert not torch.equal(new["perceiver.latents"], committed["perceiver.latents"]) or config.stem == "tiny_pretrain"


def test_the_committed_image_encoder_has_the_shapes_of_its_config(monkeypatch):
    monkeypatch.chdir(ROOT)
    new = MODELS.build(load_config(PRETRAINING / "tiny_pretrain_vision.py").model).vision.state_dict()
    committed = MODELS.build(load_config(CONFIGS / "tiny_lora_joint.py").vision).state_dict()
    assert {k: v.shape for k, v in new.items()} == {k: v.shape for k, v in committed.items()}


@pytest.mark.parametrize("name", ["tiny_pretrain_vision.py", "tiny_pretrain.py"])
def test_the_loss_falls_in_a_short_pretraining(name, worlds, tmp_path):
    options = [f"data_root={worlds / 'pretrain'}", "max_epochs=3", "warmup_iters=5", "default_hooks.logger.interval=2"]
    options.append("log_processor.window_size=2")
    result = tool("train.py", PRETRAINING / name, "--work-dir", tmp_path / "run", "--cfg-options", *options)
    assert result.returncode == 0, result.stderr[-3000:]
    rows = [row["loss"] for row in logged(tmp_path / "run")]
    assert rows[-1] < 0.75 * rows[0], rows


def test_a_killed_run_reaches_the_same_final_loss_when_resumed(worlds, tmp_path):
    options = ["--cfg-options", f"data_root={worlds / 'tiny'}", "default_hooks.checkpoint.interval=4"]
    options += ["default_hooks.logger.interval=1", "train_dataloader.batch_size=16"]
    whole = tool("train.py", CONFIGS / "tiny_lora_joint.py", "--work-dir", tmp_path / "whole", *options)
    assert whole.returncode == 0, whole.stderr[-3000:]
    expected = {row["step"]: row["loss"] for row in logged(tmp_path / "whole")}

    command = [ROOT / "tools" / "train.py", CONFIGS / "tiny_lora_joint.py", "--work-dir", tmp_path / "cut"]
    with started_script(*command, *options) as process:
        deadline = time.monotonic() + 240
        while not (tmp_path / "cut" / "iter_8.pth").exists():
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    resumed = run_script(*command, "--resume", *options)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    rows = {row["step"]: row["loss"] for row in logged(tmp_path / "cut")}
    assert 8 < min(rows) <= max(rows) == max(expected)
    assert rows[max(rows)] == expected[max(rows)]
    states = [torch.load(tmp_path / name / "latest.pth", weights_only=True)["state_dict"] for name in ("whole", "cut")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_test_command_evaluates_the_tiny_model(worlds, tmp_path):
    out = tmp_path / "metrics.json"
    options = ["--out", out, "--work-dir", tmp_path, "--cfg-options", f"data_root={worlds / 'tiny'}"]
    result = tool("test.py", CONFIGS / "tiny_lora_joint.py", *options)
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads(Path(out).read_text())
    assert {"accuracy/colour", "accuracy/visual_mean", "accuracy/language_mean"} <= set(metrics)
