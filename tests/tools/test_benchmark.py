"""tools/analysis_tools/benchmark.py on a tiny model: printed tables and written files."""

import importlib.util
import json
from pathlib import Path

import pytest

from tests.benchmarks.conftest import SMALL

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("benchmark", ROOT / "tools" / "analysis_tools" / "benchmark.py")
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)
OPTIONS = ["--cfg-options", *(f"{key}={value}" for key, value in SMALL.items())]


def report(tmp_path, *arguments):
    benchmark.main(["--quick", "--out", str(tmp_path), *arguments, *OPTIONS])
    return json.loads((tmp_path / "report.json").read_text())


def test_report_of_all_sections_but_startup(tmp_path, capsys):
    # Without 'startup', which starts processes for seconds.
    sections = ["training", "decoding", "growth"]
    results = report(tmp_path, "--only", *sections)
    printed = capsys.readouterr().out
    names = {"joint_step_over_parts", "joint_step_over_peer", "decode_over_parts", "decode_over_peer"}
    names |= {"prefill_over_parts", "prefill_over_peer"}
    assert names <= results["ratios"].keys()
    assert all(name in printed for name in results["ratios"])
    assert results["operation_ratios"].keys() < results["ratios"].keys()
    assert results["peak_ratios"].keys() == {name for name in results["operation_ratios"] if name.endswith("over_peer")}
    assert all(limit > 0 for limit in results["limits"].values())
    assert "% of limit" in printed
    shares = {row["name"] for row in results["rows"] if "share" in row}
    assert {"joint step, packed", "decode, 1 beam, batch 1", "decode, 1 beam, batch 1: language model"} < shares
    assert {row["section"] for row in results["rows"]} == set(sections) - {"growth"}
    assert set(results["growth"]) == {"rows", "length", "images"}
    assert results["rounds"] == 1
    assert results["config"] == "configs/mmgpt/benchmark.py"
    assert results["command"].startswith("tools/analysis_tools/benchmark.py --quick --out")
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "rows.png", "growth.png"}


def test_one_section_and_more_rounds(tmp_path):
    results = report(tmp_path, "--only", "growth", "--rounds", "2")
    assert not results["rows"]
    assert not results["ratios"]
    assert results["rounds"] == 2
    assert results["growth"]["images"]["sizes"] == [0, 1, 2]


def test_merged_lora_alone(tmp_path):
    results = report(tmp_path, "--only", "decoding", "--lora", "merged")
    names = [row["name"] for row in results["rows"]]
    assert "decode, 3 beams, batch 8" in names
    assert not any("unmerged" in name for name in names)


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--rounds 0"):
        report(tmp_path, "--rounds", "0")
    with pytest.raises(SystemExit):
        report(tmp_path, "--only", "something")
