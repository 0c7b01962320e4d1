"""Runs of tools/train.py on the stub config, in processes of their own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.helpers.stub_training import write_config

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


def train(folder: Path, more: str, *arguments: object, timeout: float = 240) -> subprocess.CompletedProcess:
    """Train in a process group of its own, and return the finished process with its output."""
    command = [sys.executable, str(ROOT / "tools" / "train.py"), str(write_config(folder, more=more))]
    return _run([*command, *map(str, arguments)], timeout)


def train_on_two(folder: Path, more: str, *arguments: object, timeout: float = 240) -> subprocess.CompletedProcess:
    """Train with tools/dist_train.sh in two processes, in the work directory `two`."""
    script = ["bash", str(ROOT / "tools" / "dist_train.sh"), str(write_config(folder, more=more)), "2"]
    return _run([*script, "--work-dir", str(folder / "two"), *map(str, arguments)], timeout)


def logs(work_dir: Path) -> str:
    """The text of all logs in a work directory."""
    return "\n".join(path.read_text() for path in sorted(work_dir.glob("*/*.log")))


def _run(command: list[str], timeout: float) -> subprocess.CompletedProcess:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**ENVIRONMENT, "PORT": str(port)}
    options = dict(env=environment, capture_output=True, text=True, start_new_session=True)
    return subprocess.run(command, timeout=timeout, **options)
