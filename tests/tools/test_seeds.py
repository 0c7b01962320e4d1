"""Several evaluations by one command of tools/test.py: seeds, and pictures that are not the right ones."""

import json
import runpy
from pathlib import Path

import pytest

from tests.tools.test_train import run, write_config  # noqa: F401

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "test.py"))


def test_one_evaluation_for_each_seed(tmp_path, run, capsys):  # noqa: F811
    config = write_config(tmp_path, more="test_dataloader['dataset']['size'] = '${seed}'")
    assert run("test.py", config, "--seeds", 5, 9, "--out", tmp_path / "m.json") == 0
    result = json.loads((tmp_path / "m.json").read_text())
    assert list(result) == ["seed 5", "seed 9", "mean", "deviation"]
    first, second = result["seed 5"]["error"], result["seed 9"]["error"]
    assert result["mean"]["error"] == pytest.approx((first + second) / 2)
    assert first != second
    assert result["deviation"]["error"] == pytest.approx(abs(first - second) / 2**0.5)
    samples = {
        json.loads(path.read_text())["samples"] for path in tmp_path.glob("work_dirs/stub/evaluation/*/result.json")
    }
    assert samples == {5, 9}
    assert "│ error" in capsys.readouterr().out


def test_controls_have_a_mean_of_their_own():
    runs = {f"seed {i}{kind}": {"a": float(i + len(kind))} for i in (1, 3) for kind in ("", ", other image")}
    means = TOOL["over_seeds"](runs)
    assert means["mean"] == {"a": 2.0}
    assert means["mean, other image"] == {"a": 15.0}
    assert means["deviation"] == {"a": pytest.approx(2**0.5)}
