"""The whole command on a tiny model: what it prints and writes."""

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


def test_sections(tmp_path, capsys):
    # Without 'startup', which starts processes for seconds.
    measured = ["training", "decoding", "growth"]
    made = report(tmp_path, "--only", *measured)
    printed = capsys.readouterr().out
    wanted = {"joint_step_over_parts", "joint_step_over_peer", "decode_over_parts", "decode_over_peer"}
    wanted |= {"prefill_over_parts", "prefill_over_peer"}
    assert wanted <= made["ratios"].keys() and all(name in printed for name in made["ratios"])
    assert made["operation_ratios"].keys() < made["ratios"].keys()
    assert made["peak_ratios"].keys() == {name for name in made["operation_ratios"] if name.endswith("over_peer")}
    assert all(each > 0 for each in made["limits"].values()) and "% of limit" in printed
    shares = {row["name"] for row in made["rows"] if "share" in row}
    assert {"joint step, packed", "decode, 1 beam, batch 1", "decode, 1 beam, batch 1: language model"} < shares
    assert {row["section"] for row in made["rows"]} == set(measured) - {"growth"}
    assert set(made["growth"]) == {"rows", "length", "images"}
    assert made["rounds"] == 1 and made["config"] == "configs/mmgpt/benchmark.py"
    assert made["command"].startswith("tools/analysis_tools/benchmark.py --quick --out")
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "rows.png", "growth.png"}


def test_one_section_and_more_rounds(tmp_path):
    made = report(tmp_path, "--only", "growth", "--rounds", "2")
    assert not made["rows"] and not made["ratios"] and made["rounds"] == 2
    assert made["growth"]["images"]["sizes"] == [0, 1, 2]


def test_one_way_of_lora(tmp_path):
    made = report(tmp_path, "--only", "decoding", "--lora", "merged")
    names = [row["name"] for row in made["rows"]]
    assert "decode, 3 beams, batch 8" in names and not any("unmerged" in name for name in names)


def test_mistakes(tmp_path):
    with pytest.raises(ValueError, match="--rounds 0"):
        report(tmp_path, "--rounds", "0")
    with pytest.raises(SystemExit):
        report(tmp_path, "--only", "something")
