"""Settings of OpenMP, as the library says that it has read them."""

import os
import re
import subprocess
import sys

import pytest

from mmgpt.utils.openmp import SPINS, VARIABLES


def spins(code, **environment):
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    run = [sys.executable, "-c", f"{code}; import torch"]
    environment = clean | {"OMP_DISPLAY_ENV": "VERBOSE"} | environment
    shown = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stderr
    found = re.search(r"GOMP_SPINCOUNT = '(\d+)'", shown)
    return found[1] if found else pytest.skip("torch has another OpenMP than GNU's")


def test_the_threads_of_a_tool_sleep_soon_unless_the_environment_says_otherwise():
    limit = "from mmgpt.cli import tool; tool.run(lambda: __import__('torch'))"
    assert spins("pass") != SPINS
    assert spins(limit) == SPINS
    assert spins(limit, GOMP_SPINCOUNT="70000") == "70000"
    assert spins(limit, OMP_WAIT_POLICY="PASSIVE") == "0"
