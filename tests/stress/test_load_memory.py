"""The memory test on a tiny model, whose weights are less than ten megabytes."""

import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

TOOL = Path(__file__).parents[2] / "tests" / "stress" / "load_memory.py"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_size_of_weights_and_peak_are_printed(tiny_flamingo_config, tmp_path):
    Config(dict(model=tiny_flamingo_config)).dump(tmp_path / "tiny.py")
    command = [sys.executable, str(TOOL), str(tmp_path / "tiny.py")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=TOOL.parents[2])
    assert result.returncode == 0, result.stderr
    assert "weights 0.00 GB, peak while loading" in result.stdout
