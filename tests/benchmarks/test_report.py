"""What the report holds and shows."""

import json

import mmengine
import pytest
import torch
from PIL import Image

from benchmarks import report
from benchmarks.growth import BARE, OURS, Law, laws, name
from mmgpt.visualization.tables import print_tables


class Counted:
    def figures(self):
        return dict(learned=4, peak_bytes=3 * 2**20, operations=5e9)


@pytest.fixture
def results():
    cases = {"step": Counted(), "step: part": Counted(), "peer: step": Counted()}
    times = {"step": [0.3, 0.1, 0.2], "step: part": [0.1] * 3, "peer: step": [0.4] * 3}
    rows = report.row_figures("training", cases, times)
    rows += report.row_figures("decoding", {"answer": tuple}, {"answer": [0.007]})
    of = {OURS: Law(1, 2, 0), BARE: Law(0, 1, 0)}
    grown = {name("rows", n, kind): [law(n)] for n in (1, 2, 4) for kind, law in of.items()}
    ratios = dict(
        ratios={"step_over_parts": 2.0, "answer_over_parts": 1.5},
        operation_ratios={"step_over_parts": 1.25},
        peak_ratios={"answer_over_parts": 0.5},
    )
    return dict(rounds=3, rows=rows, growth=laws(grown, {"rows": (1, 2, 4)}), **ratios)


def test_rows_have_medians_and_the_figures_of_their_cases(results):
    step, *_, answer = results["rows"]
    assert step == dict(
        section="training",
        name="step",
        seconds=0.2,
        rounds=[0.3, 0.1, 0.2],
        learned=4,
        per_learned=0.05,
        peak_bytes=3 * 2**20,
        operations=5e9,
    )
    assert answer == dict(section="decoding", name="answer", seconds=0.007, rounds=[0.007])
    assert report.in_place_of_times(results["rows"], "operations") == {
        "step": [5e9],
        "step: part": [5e9],
        "peer: step": [5e9],
    }


@pytest.mark.parametrize("row, kind", [("step", "ours"), ("step: part", "limit"), ("peer: step", "peer")])
def test_kinds_of_rows(row, kind):
    assert report.kind(row) == kind


def test_tables_show_rows_ratios_and_growth(results, capsys):
    print_tables(report.tables(results))
    printed = capsys.readouterr().out
    lines = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in printed.splitlines() if "│" in line}
    cells = {key: [cell.strip() for cell in line] for key, line in lines.items()}
    assert cells["step"] == ["200.00", "4", "50.00", "5.0", "3.0"]
    assert cells["answer"] == ["7.00"]
    assert cells["step_over_parts"] == ["2.000", "1.250", "–"]
    assert cells["answer_over_parts"] == ["1.500", "–", "0.500"]
    assert cells["rows"] == ["1 … 4", "3.000 … 9.000", "0.89", "1.000 … 4.000", "1.00", "yes"]
    assert "training, medians of 3 rounds" in printed


def test_written_files(results, tmp_path):
    paths = report.write(results, tmp_path / "new")
    assert [path.name for path in paths] == ["report.json", "rows.png", "growth.png"]
    assert json.loads(paths[0].read_text()) == results
    assert all(min(Image.open(path).size) > 100 for path in paths[1:])
    only = report.write({**results, "rows": [], "growth": {}}, tmp_path / "other")
    assert [path.name for path in only] == ["report.json"]


def test_setting_names_device_and_versions():
    setting = report.setting(torch.device("cpu"))
    assert setting["device"].endswith("CPU")
    assert setting["threads"] == 1
    assert setting["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert mmengine.__version__ in {setting["versions"].get(name) for name in ("mmengine", "onedl-mmengine")}
