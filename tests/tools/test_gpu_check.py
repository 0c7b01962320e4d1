"""tools/analysis_tools/gpu_check.py, rehearsed at tiny size on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.equality import check_fall

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def check(*arguments):
    command = [sys.executable, str(ROOT / "tools/analysis_tools/gpu_check.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """What a rehearsal of all parts prints, and the folder of its report."""
    folder = tmp_path_factory.mktemp("gpu_check")
    done = check("--device", "cpu", "--tiny", "--out", folder)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{(folder / 'log.txt').read_text()[-3000:]}"
    return done.stdout, folder


def test_a_rehearsal_passes_all_parts_that_a_cpu_can_run(rehearsal):
    printed, folder = rehearsal
    report = json.loads((folder / "report.json").read_text())
    assert {part["name"]: part["status"] for part in report["parts"]} == {
        "device": "passed",
        "training": "passed",
        "decoding": "passed",
        "turns": "passed",
        "tests": "skipped",
        "processes": "passed",
        "precision": "passed",
        "attention": "passed",
        "server": "passed",
        "compile": "passed",
    }
    assert (report["device"], report["tiny"]) == ("cpu", True)
    assert (folder / "report.md").read_text() in printed


def test_the_figures_of_a_rehearsal(rehearsal):
    report = json.loads((rehearsal[1] / "report.json").read_text())
    figures = {part["name"]: {figure["name"]: figure for figure in part["figures"]} for part in report["parts"]}
    assert figures["device"]["matrix products"]["value"] > 0
    assert figures["device"]["memory traffic"]["unit"] == "GB/s"
    training = figures["training"]
    assert training["rows"]["value"] == "2 of 64 tokens, 2 samples each"
    assert training["peak over plan"]["met"] is True
    share = training["speed"]["value"] / figures["device"]["matrix products"]["value"]
    assert 0 < training["share of the product rate"]["value"] < 100 * share
    decoding = figures["decoding"]
    # The matrices of the four decoder layers in float32; the head and the gated blocks come on top.
    assert decoding["weights of a step"]["value"] * 2**30 > 4 * 4 * 32 * (4 * 32 + 3 * 48)
    for kind in ("plain", "static cache", "static cache, compiled"):
        assert decoding[f"{kind}, batch 1: a step"]["unit"] == "ms"
    assert figures["turns"]["second turn over computing all again"]["value"] > 0
    losses = {figures["processes"][f"{name}, gloo: losses"]["value"] for name in ("DDP", "FSDP2")}
    assert losses == {figures["precision"]["float32: losses"]["value"]}
    for name in ("float32", "bfloat16", "int8", "--amp"):
        assert figures["precision"][f"{name}: losses"]["met"] is True
    assert figures["attention"]["packed_flex over masks"]["value"] > 0
    assert figures["compile"]["one shape: over not compiled"]["value"] > 0
    assert figures["server"]["errors"]["value"] == "none"


def test_losses_that_do_not_fall_are_refused():
    check_fall("int8", {"loss 0": 3.0, "loss 1": 3.5, "loss 2": 2.9})
    with pytest.raises(ValueError, match="int8: the loss does not fall in 2 steps, from 3 to 3"):
        check_fall("int8", {"loss 0": 3.0, "loss 1": 3.0})


def test_chosen_parts_and_a_time_that_is_over(tmp_path):
    done = check("--device", "cpu", "--tiny", "--parts", "tests", "device", "--minutes", 0, "--out", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [(part["name"], part["status"], part["reason"]) for part in report["parts"]] == [
        ("tests", "skipped", "the 0 minutes are over"),
        ("device", "skipped", "the 0 minutes are over"),
    ]
    assert done.returncode == 0
    assert "| device | versions, device, measured limits | skipped: the 0 minutes are over | 0 |" in done.stdout


def test_wrong_arguments_are_refused():
    assert "invalid choice: 'trains'" in check("--parts", "trains").stderr
    assert "--device cpu needs --tiny" in check("--device", "cpu").stderr
