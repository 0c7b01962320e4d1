"""The kill test on the stub model, killed twice."""

import random
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.stub_training import write_config

ROOT = Path(__file__).parents[2]

SCRIPT = runpy.run_path(str(ROOT / "tests" / "stress" / "kill_test.py"))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


KEYS = "optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(gated=dict(lr_mult=10, decay_mult=2))))\n"


@pytest.mark.parametrize("more, processes", [("", 2), (KEYS, 1)], ids=["two processes", "a rate for each component"])
def test_a_run_killed_twice_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, capsys, more, processes):
    more += "train_dataloader['dataset'].update(seconds=0.02, size=60)\ndefault_hooks['checkpoint']['interval'] = 2\n"
    arguments = [write_config(tmp_path, more=more), "--work-dir", tmp_path / "runs", "--kills", 2, "--seconds", 0.2]
    arguments += ["--processes", processes]
    assert SCRIPT["main"](list(map(str, arguments))) == 0
    output = capsys.readouterr().out
    assert "equal, bit by bit" in output
    assert "2 of 2 kills" in output
    assert "between" in output
    states = [torch.load(tmp_path / "runs" / name / "latest.pth", weights_only=True) for name in ("whole", "killed")]
    assert states[0]["meta"]["iter"] == states[1]["meta"]["iter"] == 60 // processes


def test_differences_between_checkpoints_are_named():
    a = {"x": [torch.ones(2), {"step": 3}], "y": torch.zeros(1)}
    b = {"x": [torch.ones(2), {"step": 4}], "y": torch.tensor([1e-45])}
    assert SCRIPT["differences"](a, a) == []
    assert SCRIPT["differences"](a, b) == ["x[1].step", "y"]
    assert SCRIPT["differences"]({"x": 1}, {"y": 1}, "state") == ["state"]


def test_a_run_that_fails_by_itself_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="exit code 1, see .*killed.log"):
        (tmp_path / "killed").mkdir()
        command = [sys.executable, "-c", "raise SystemExit(1)"]
        SCRIPT["start_and_kill"](command, tmp_path / "killed", "write", random.Random(0), 1.0)
