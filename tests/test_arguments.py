"""What is imported for what."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "peft", "mmcv", "open_clip", "mmpretrain", "gradio", "cv2")
HELP = """
import runpy
sys.argv = ["train.py", "--help"]
try:
    runpy.run_path("tools/train.py", run_name="__main__")
except SystemExit:
    pass
"""


@pytest.mark.parametrize("work", ["import mmgpt", HELP], ids=["import mmgpt", "train.py --help"])
def test_without_what_takes_seconds(work):
    code = f"import sys\n{work}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_the_options():
    command = [sys.executable, "tools/train.py", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(option in shown for option in ("--resume", "--amp", "--work-dir", "--cfg-options"))
