"""Runs of tools/train.py on the stub config, in one process or two."""

import socket
import subprocess
from pathlib import Path
from subprocess import CompletedProcess

from tests.helpers.scripts import ENVIRONMENT, ROOT, run_processes, run_script
from tests.helpers.stub_training import write_config

TRAIN = ROOT / "tools" / "train.py"


def train(folder: Path, more: str, *arguments: object, timeout: float = 240) -> CompletedProcess:
    """Train in a process, and return the finished process with its output."""
    return run_script(TRAIN, write_config(folder, more=more), *arguments, timeout=timeout)


def train_on_two(folder: Path, more: str, *arguments: object, timeout: float = 240) -> CompletedProcess:
    """Train in two processes, in the work directory `two`."""
    return run_on_two(write_config(folder, more=more), "--work-dir", folder / "two", *arguments, timeout=timeout)


def run_on_two(config: Path, *arguments: object, timeout: float = 300) -> CompletedProcess:
    """Train in two processes such as torchrun starts, and return them as one."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    ranks = [{**address, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    return run_processes(ranks, TRAIN, [config, *arguments, "--launcher", "pytorch"], timeout)


def run_launcher(script: str, *arguments: object, timeout: float = 300) -> CompletedProcess:
    """Runs one of the shell scripts in tools/ that start several processes."""
    command = ["bash", str(ROOT / "tools" / script), *map(str, arguments)]
    environment = {**ENVIRONMENT, "PORT": str(free_port())}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def logs(work_dir: Path) -> str:
    """The text of all logs in a work directory."""
    return "\n".join(path.read_text() for path in sorted(work_dir.glob("*/*.log")))
