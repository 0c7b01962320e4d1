"""tools/analysis_tools/analyze_results.py on evaluations made by hand."""

import importlib
import sys
from pathlib import Path

import pytest

from mmgpt.registry import SCORES
from tests.helpers.evaluation_files import dataset, row, write
from tests.helpers.html_pages import read_page

TOOLS = Path(__file__).parents[2] / "tools" / "analysis_tools"


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("analyze_results")
    sys.path.remove(str(TOOLS))


@pytest.fixture
def first(tmp_path):
    """Twenty questions about colours, half of the answers right, and two questions without an image, both wrong."""
    rows = [row(i, prediction="red" if i % 2 else f"wrong{i}") for i in range(20)]
    rows += [row(i, dataset="words", question="Say it.", images=[], prediction=f"wrong{i}") for i in (20, 21)]
    return write(tmp_path / "a" / "evaluation" / "first", rows)


@pytest.fixture
def second(tmp_path):
    """The same questions, with correct answers to all but numbers 1 and 3."""
    rows = [row(i, prediction="red" if i not in (1, 3) else f"lost{i}") for i in range(20)]
    rows += [row(i, dataset="words", question="Say it.", images=[]) for i in (20, 21)]
    return write(tmp_path / "b" / "evaluation" / "second", rows, model=dict(lora=dict(r=64)))


@pytest.fixture
def sheets(tool, monkeypatch):
    """The rows of the sheets that the tool draws, by the sheet's name."""
    drawn = {}
    real = tool.draw_sheet
    monkeypatch.setattr(tool, "draw_sheet", lambda rows, path: drawn.update({path.stem: rows}) or real(rows, path))
    return drawn


def lines(text):
    """The cells of a printed table's lines, by the first one."""
    cells = [line.replace("│", " ").split() for line in text.splitlines() if line.strip(" │")]
    return {line[0]: line[1:] for line in cells}


def test_scores_and_sheets_of_one_evaluation(tool, first, sheets, capsys):
    tool.main([str(first), "--count", "11"])
    printed = capsys.readouterr().out
    shown = lines(printed)
    assert shown["colour"] == ["20", "50.0"]
    assert shown["words"] == ["2", "0.0"]
    assert shown["what"] == ["colour", "20", "50.0"]
    assert shown["say"] == ["it", "2", "0.0"]
    sheet_files = [first / "analysis" / name for name in ("worst.png", "random.png")]
    assert all(path.stat().st_size > 1000 and str(path) in printed for path in sheet_files)
    assert len(sheets["worst"]) == 11
    assert not any(shown_row["correct"] for shown_row in sheets["worst"])
    assert len(sheets["random"]) == 11
    assert any(shown_row["correct"] for shown_row in sheets["random"])
    assert {shown_row["image"].getpixel((0, 0)) for shown_row in sheets["worst"] if shown_row["images"]} == {
        (255, 0, 0)
    }


def test_worst_answers_come_first_and_random_ones_are_reproducible(tool, tmp_path, sheets):
    folder = write(tmp_path, [row(i, score=(i % 5) / 4) for i in range(20)])
    tool.main([str(folder), "--count", "6"])
    before = dict(sheets)
    tool.main([str(folder), "--count", "6", "--out", str(tmp_path / "again")])
    assert before == sheets
    assert (tmp_path / "again" / "worst.png").is_file()
    scores = [shown_row["score"] for shown_row in sheets["worst"]]
    assert scores == sorted(scores)
    assert len(scores) == 6
    assert scores[3] < scores[4]
    assert [shown_row["correct"] for shown_row in sheets["worst"]] == [score >= 0.5 for score in scores]
    assert [shown_row["index"] for shown_row in sheets["random"]] != sorted(
        shown_row["index"] for shown_row in sheets["random"]
    )


def test_no_sheet_of_worst_answers_when_all_are_correct(tool, tmp_path, capsys):
    tool.main([str(write(tmp_path, [row(0)]))])
    assert "random.png" in capsys.readouterr().out
    assert not (tmp_path / "analysis" / "worst.png").exists()


def test_missing_images_are_reported(tool, tmp_path, capsys):
    tool.main([str(write(tmp_path, [row(0, images=["missing.png"])], dataset(tmp_path)))])
    assert "1 images could not be opened, such as: " in (printed := capsys.readouterr().out)
    assert "missing.png" in printed


def test_two_evaluations_are_compared(tool, first, second, capsys):
    tool.main([str(first), str(second), "--names", "before", "after", "--count", "3"])
    printed = capsys.readouterr().out
    shown = lines(printed)
    assert shown["colour"][:4] == ["20", "50.0", "90.0", "+40.0"]
    assert shown["colour"][-3:] == ["10", "2", "0.039"]
    assert shown["all"][:4] == ["22", "45.5", "90.9", "+45.5"]
    assert shown["wins"][0] == "12,"
    path = second / "analysis" / "against-first.html"
    assert f"written: {path}" in printed
    page = read_page(path)
    assert page.all(name="h1")[0].text == "after against before"
    assert "model.lora.r" in page.all("settings")[0].text
    assert "64" in page.all("settings")[0].text
    wins, losses = page.all(name="section")
    assert "12, 3 shown" in wins.text
    assert len(wins.all(name="article")) == 3
    assert [element.text.split()[-1] for element in losses.all("origin")] in (["q1", "q3"], ["q3", "q1"])
    assert all(len(element.all(name="img")) == 1 for element in losses.all(name="article"))


def test_both_images_are_shown_where_they_differ(tool, first, tmp_path):
    rows = [row(i, images=["other.png"], prediction="blue") for i in range(20)]
    rows += [row(i, dataset="words", question="Say it.", images=[]) for i in (20, 21)]
    tool.main([str(first), str(write(tmp_path / "control", rows)), "--out", str(tmp_path / "out")])
    _, losses = read_page(tmp_path / "out" / "against-first.html").all(name="section")
    assert {len(element.all(name="img")) for element in losses.all(name="article")} == {2}


def test_results_that_cannot_be_compared_are_refused(tool, first, tmp_path, capsys):
    other = write(tmp_path / "other", [row(0)])
    with pytest.raises(ValueError, match="only evaluations of the same samples"):
        tool.main([str(first), str(other)])
    with pytest.raises(ValueError, match="--count 0"):
        tool.main([str(first), "--count", "0"])
    for wrong in ([str(first)] * 3, [str(first), "--names", "a", "b"]):
        with pytest.raises(SystemExit):
            tool.main(wrong)
        assert "one result or two, and as many names" in capsys.readouterr().err


def test_a_rule_from_outside_the_package_is_imported_first(tool, tmp_path, monkeypatch, capsys):
    folder = write(tmp_path / "a", [row(0), row(1, prediction="blue")], metrics=dict(rule="same_length"))
    (tmp_path / "length_rule.py").write_text(
        "from mmgpt.registry import SCORES\n"
        "@SCORES.register_module()\n"
        "def same_length(sample):\n"
        "    return len(sample['prediction']) / 4\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="unknown rule 'same_length'.*--custom-imports"):
        tool.main([str(folder)])
    tool.main([str(folder), "--custom-imports", "length_rule"])
    assert lines(capsys.readouterr().out)["colour"] == ["2", "87.5"]
    SCORES.module_dict.pop("same_length")
