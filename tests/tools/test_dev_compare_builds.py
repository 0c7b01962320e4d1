"""tools/dev/compare_builds.sh."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "tools/dev/compare_builds.sh"


def test_an_unknown_commit_leaves_no_folder(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(["bash", SCRIPT, "no-such-commit"], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.count("fatal:") == 1
    assert list(tmp_path.iterdir()) == []
