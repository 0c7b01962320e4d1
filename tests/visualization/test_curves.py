"""draw_curves: one or several runs, whatever they log; files that are cut short, missing or empty."""

import json

import pytest
from PIL import Image

from mmgpt.visualization import draw_curves
from mmgpt.visualization.curves import read_scalars


def write(path, names, steps=20):
    lines = [{name: 2.0 / step for name in names} | {"iter": step, "step": step} for step in range(1, steps + 1)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


ALL = ["loss", "loss_visual", "loss_language", "lr"]


def test_one_run_has_a_panel_for_each_scalar(tmp_path):
    wide = Image.open(draw_curves(write(tmp_path / "a.json", ALL), tmp_path / "new" / "curves.png"))
    narrow = Image.open(draw_curves(write(tmp_path / "b.json", ["loss"]), tmp_path / "curves.png"))
    assert wide.format == "PNG" and wide.size[0] == 4 * narrow.size[0]


def test_several_runs_with_different_scalars_and_hostile_names(tmp_path):
    runs = {"_$\\frac{": write(tmp_path / "a.json", ALL), "joint": write(tmp_path / "b.json", ["loss", "lr"], 1)}
    assert draw_curves(runs, tmp_path / "curves.png").is_file()


def test_a_resumed_run_and_a_line_cut_short(tmp_path):
    path = write(tmp_path / "a.json", ["loss"], 3)
    path.write_text(path.read_text() + '{"loss": 9.0, "step": 2}\n{"accuracy/mean": 5, "step": 3}\n{"loss": 1, "st')
    assert read_scalars(path) == {"loss": [(1, 2.0), (2, 9.0), (3, pytest.approx(2 / 3))]}


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.json"):
        draw_curves(tmp_path / "nowhere.json", tmp_path / "curves.png")
    (tmp_path / "empty.json").write_text("")
    with pytest.raises(ValueError, match=r"empty.json: holds none of \['loss'"):
        draw_curves(tmp_path / "empty.json", tmp_path / "curves.png")
