"""Curves: one or several runs, whatever they log; resumed runs, smoothing, files that are missing or empty."""

import json

import pytest
from PIL import Image

from mmgpt.visualization import draw_curves
from mmgpt.visualization.curves import find_scalars, read_scalars, smooth

ALL = ["loss", "loss_visual", "loss_language", "lr"]


def write(path, names, steps=range(1, 21), scale=2.0):
    lines = [{name: scale / step for name in names} | {"iter": step, "step": step} for step in steps]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def start(work_dir, name, *arguments, **changes):
    return write(work_dir / name / "vis_data" / "scalars.json", *arguments, **changes)


def run(names, steps=20):
    return {name: [(step, 2.0 / step) for step in range(1, steps + 1)] for name in names}


def test_one_run_has_a_panel_for_each_scalar(tmp_path):
    wide = Image.open(draw_curves({"": run(ALL)}, tmp_path / "new" / "curves.png"))
    narrow = Image.open(draw_curves({"": run(["loss"])}, tmp_path / "curves.png"))
    assert wide.format == "PNG"
    assert wide.size[0] == 4 * narrow.size[0]


def test_five_panels_take_two_rows(tmp_path):
    first, second = (draw_curves({"": run(ALL + more)}, tmp_path / "c.png", ALL + ["x"]) for more in ([], ["x"]))
    assert first == second
    assert Image.open(second).size[1] == 2 * Image.open(draw_curves({"": run(ALL)}, first)).size[1]


def test_several_runs_with_different_scalars_and_hostile_names(tmp_path):
    runs = {"_$\\frac{": run([*ALL, "$x_{"]), "joint": run(["loss", "lr"], 1)}
    assert draw_curves(runs, tmp_path / "curves.png", [*ALL, "$x_{"], 0.5).is_file()


def test_scalars_that_no_run_has(tmp_path):
    with pytest.raises(ValueError, match="no run has any of loss, los; there are accuracy, lr"):
        draw_curves({"": run(["lr", "accuracy"])}, tmp_path / "curves.png", ["loss", "los"])


def test_a_line_written_twice_and_a_line_cut_short(tmp_path):
    path = write(tmp_path / "a.json", ["loss"], range(1, 4))
    more = '{"loss": 9.0, "step": 2}\n{"accuracy/mean": 5, "name": "x", "step": 3}\n[1]\n{"loss": 1, "st'
    path.write_text(path.read_text() + more)
    assert read_scalars([path]) == {"loss": [(1, 2.0), (2, 9.0), (3, pytest.approx(2 / 3))], "accuracy/mean": [(3, 5)]}


def test_a_resumed_run_goes_on_where_it_was_resumed(tmp_path):
    start(tmp_path, "20260101", ["loss"], [1, 2, 3, 4])
    start(tmp_path, "20260102", ["loss"], [3, 4, 5], scale=20)
    # tools/test.py in the same folder
    start(tmp_path, "20260103", ["accuracy"], [1])
    files = find_scalars(tmp_path)
    assert [path.parts[-3] for path in files] == ["20260101", "20260102", "20260103"]
    assert [step for step, _ in read_scalars(files)["loss"]] == [1, 2, 3, 4, 5]
    assert read_scalars(files)["loss"][1:3] == [(2, 1), (3, pytest.approx(20 / 3))]


def test_a_run_that_started_anew_replaces_the_one_before(tmp_path):
    start(tmp_path, "20260101", ["loss"], range(1, 9))
    start(tmp_path, "20260102", ["loss"], [1, 2], scale=4)
    assert read_scalars(find_scalars(tmp_path)) == {"loss": [(1, 4), (2, 2)]}


def test_a_run_by_its_folder_its_log_and_its_file(tmp_path):
    file = start(tmp_path, "20260101", ["loss"])
    (tmp_path / "20260101" / "20260101.log").write_text("")
    for path in (file, tmp_path / "20260101", tmp_path / "20260101" / "20260101.log"):
        assert find_scalars(path) == [file]
    with pytest.raises(FileNotFoundError, match="nowhere: no scalars of a run"):
        find_scalars(tmp_path / "nowhere")


def test_smoothing():
    points = [(1, 4.0), (2, 0.0), (3, 2.0)]
    smoothed = smooth({"loss": points, "lr": points}, 0.5)
    assert smoothed["lr"] == points
    assert smoothed["loss"] == [(1, 4), (2, pytest.approx(2 / 1.5)), (3, pytest.approx((1 + 0 + 2) / 1.75))]
    assert smooth({"loss": points}, 0) == {"loss": points}


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.json"):
        read_scalars([tmp_path / "nowhere.json"])
    (tmp_path / "empty.json").write_text("")
    with pytest.raises(ValueError, match=r"empty.json: no scalars there"):
        read_scalars([tmp_path / "empty.json"])
