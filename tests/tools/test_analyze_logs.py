"""tools/analysis_tools/analyze_logs.py on scalars made by hand."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

TOOLS = Path(__file__).parents[2] / "tools" / "analysis_tools"


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("analyze_logs")
    sys.path.remove(str(TOOLS))


def make(work_dir, names, steps=4, start="20260101"):
    folder = work_dir / start / "vis_data"
    folder.mkdir(parents=True)
    scalars = [dict.fromkeys(names, 8.0 / step) | {"lr": 0.5, "step": 10 * step} for step in range(1, steps + 1)]
    for number, line in enumerate(scalars):
        line |= {"time": 0.2 if number else 1.8, "data_time": 0.1}
    (folder / "scalars.json").write_text("".join(json.dumps(line) + "\n" for line in scalars))
    return work_dir


def lines(text):
    cells = [line.replace("│", " ").split() for line in text.splitlines() if "│" in line]
    return {line[0]: line[1:] for line in cells}


def test_curves_and_table_of_two_runs(tool, tmp_path, capsys):
    make(tmp_path / "a", ["loss", "loss_visual"])
    make(tmp_path / "b", ["loss"], 2)
    out = tmp_path / "new" / "curves.png"
    tool.main([str(tmp_path / "a"), str(tmp_path / "b" / "20260101"), "--out", str(out)])
    printed = capsys.readouterr().out
    # 0.4 of 2.4 seconds of four lines, 0.2 of 2.0 of two.
    assert lines(printed)["a"] == ["40", "2", "2", "0.5", "0.2", "17%"]
    assert lines(printed)["20260101"] == ["20", "4", "–", "0.5", "1", "10%"]
    assert f"written: {out}" in printed
    assert Image.open(out).format == "PNG"


def test_chosen_keys_and_smoothing(tool, tmp_path, capsys):
    run = make(tmp_path / "a", ["loss", "other"])
    tool.main([str(run), "--keys", "other", "lr", "--smooth", "0.5", "--out", str(tmp_path / "c.png")])
    # (2 + 8/3 / 2 + 4 / 4 + 8 / 8) / (1 + 1/2 + 1/4 + 1/8)
    assert lines(capsys.readouterr().out)["a"][:3] == ["40", "2.844", "0.5"]


def test_runs_of_the_same_name_are_named_by_their_paths(tool, tmp_path):
    paths = [str(make(tmp_path / side / "run", ["loss"])) for side in "ab"]
    assert tool.runs_by_name(paths) == {path: path for path in paths}
    assert list(tool.runs_by_name([f"{paths[0]}/20260101/vis_data/scalars.json"])) == ["20260101"]
    assert list(tool.runs_by_name([f"{paths[0]}/20260101/20260101.log", paths[1]])) == ["20260101", "run"]


def test_wrong_arguments_are_refused(tool, tmp_path):
    run = str(make(tmp_path / "a", ["loss"]))
    with pytest.raises(ValueError, match="--keys los: choose from data_time, loss, lr, time"):
        tool.main([run, "--keys", "loss", "los"])
    with pytest.raises(ValueError, match="--smooth 1.0 must be at least 0 and below 1"):
        tool.main([run, "--smooth", "1"])
    with pytest.raises(FileNotFoundError, match="no scalars of a run"):
        tool.main([str(tmp_path)])
