"""The generator's commands under the paths that README gave them in an earlier release."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("old", "new"), [("tiny_world.py", "generate.py"), ("tiny_tokenizer.py", "train_tokenizer.py")]
)
def test_the_earlier_path_warns_and_runs_the_command(old, new):
    command = [sys.executable, ROOT / "tools" / "dataset_converters" / old, "--help"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0
    assert process.stderr == f"warning: {old} is projects/tiny_world/{new} now\n"
    assert process.stdout.startswith(f"usage: {new}")


def test_the_exit_code_is_that_of_the_command(tmp_path):
    (tmp_path / "thesis.txt").touch()
    command = [sys.executable, ROOT / "tools" / "dataset_converters" / "tiny_world.py", tmp_path]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 1
    assert "was not made by this tool" in process.stderr
