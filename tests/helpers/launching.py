"""Runs of scripts in processes of their own, above all of tools/train.py on the stub config.

Most of a short run are its imports. The processes here are forks of one that has them already.
"""

import atexit
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

from tests.helpers.stub_training import write_config

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["mmgpt.apis", "mmgpt.engine", "mmgpt.inference", "mmengine.runner", "transformers"])


def start_script(
    script: Path,
    *arguments: object,
    cwd: Path = ROOT,
    stdin: Path = Path(os.devnull),
    output: Path = Path(os.devnull),
    error: Path | None = None,
    environment: Mapping[str, str] = ENVIRONMENT,
) -> ForkServerProcess:
    """A process, in a group of its own, that runs a Python file as the command line does.

    Args:
        script: the file, whose folder is the first to import from.
        arguments: of the command.
        cwd: working directory.
        stdin, output, error: files of the standard streams; error None: `output`.
        environment: all environment variables. Those that an import reads have no effect.
    """
    streams = stdin, output, error or output
    process = SERVER.Process(target=_run, args=(script, list(map(str, arguments)), cwd, streams, dict(environment)))
    process.start()
    return process


def run_script(script: Path, *arguments: object, timeout: float = 300, **options: object) -> CompletedProcess:
    """Runs scripts as `start_script` does, and returns the finished process with its output.

    The options of `start_script`; with `input` instead of `stdin`, a text.
    """
    return _run_processes([{}], script, arguments, timeout, **options)


def train(folder: Path, more: str, *arguments: object, timeout: float = 240) -> CompletedProcess:
    """Train in a process, and return the finished process with its output."""
    return run_script(ROOT / "tools" / "train.py", write_config(folder, more=more), *arguments, timeout=timeout)


def train_on_two(folder: Path, more: str, *arguments: object, timeout: float = 240) -> CompletedProcess:
    """Train in two processes, in the work directory `two`."""
    return run_on_two(write_config(folder, more=more), "--work-dir", folder / "two", *arguments, timeout=timeout)


def run_on_two(config: Path, *arguments: object, timeout: float = 300) -> CompletedProcess:
    """Train in two processes such as torchrun starts, and return them as one."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    ranks = [{**address, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    arguments = [config, *arguments, "--launcher", "pytorch"]
    return _run_processes(ranks, ROOT / "tools" / "train.py", arguments, timeout)


def run_launcher(script: str, *arguments: object, timeout: float = 300) -> CompletedProcess:
    """Runs one of the shell scripts in tools/ that start several processes."""
    command = ["bash", str(ROOT / "tools" / script), *map(str, arguments)]
    environment = {**ENVIRONMENT, "PORT": str(free_port())}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def logs(work_dir: Path) -> str:
    """The text of all logs in a work directory."""
    return "\n".join(path.read_text() for path in sorted(work_dir.glob("*/*.log")))


def _run_processes(
    variables: Sequence[Mapping[str, str]],
    script: Path,
    arguments: Sequence[object],
    timeout: float,
    input: str = "",
    environment: Mapping[str, str] = ENVIRONMENT,
    **options: object,
) -> CompletedProcess:
    """A process of the script for each of these additional environment variables, as one; one that fails ends all."""
    with tempfile.TemporaryDirectory() as folder:
        streams = {name: Path(folder, name) for name in ("stdin", "output", "error")}
        streams["stdin"].write_text(input)
        processes = [
            start_script(script, *arguments, **streams, environment={**environment, **more}, **options)
            for more in variables
        ]
        running, late = list(processes), False
        while running and not late:
            ended = wait([process.sentinel for process in running], timeout)
            late = not ended
            running = [process for process in running if process.sentinel not in ended]
            if any(process.exitcode for process in processes if process not in running):
                for process in running:
                    process.terminate()
        for process in running:
            process.kill()
        output, error = (streams[name].read_text(errors="replace") for name in ("output", "error"))
        if late:
            raise TimeoutExpired([script, *arguments], timeout, output, error)
        codes = [process.exitcode for process in processes]
        return CompletedProcess([script, *arguments], codes[0] if len(codes) == 1 else int(any(codes)), output, error)


def _run(script: Path, arguments: list[str], cwd: Path, streams: Sequence[Path], environment: dict) -> None:
    """What a process of `start_script` does."""
    os.setsid()
    for number, path in enumerate(streams):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    multiprocessing.set_start_method(None, force=True)  # forkserver is that of this process, not of the script
    sys.path[:0] = [str(Path(script).parent), *environment["PYTHONPATH"].split(os.pathsep)]
    sys.argv = [str(script), *arguments]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        # Processes of multiprocessing leave these out.
        atexit._run_exitfuncs()
