"""Python scripts in processes of their own, which do not wait for the imports of other packages.

Those take most of a short run. The processes are forks of one that has them.
"""

import atexit
import multiprocessing
import os
import random
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from unittest.mock import patch

import numpy as np

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["mmgpt.utils.lean_generation", "mmengine.runner", "peft", "timm", "open_clip"])
GRACE = 30  # seconds until the others are killed where one of several processes has failed, as with torchrun


@contextmanager
def started_script(
    script: Path,
    *arguments: object,
    cwd: Path = ROOT,
    stdin: Path = Path(os.devnull),
    output: Path = Path(os.devnull),
    error: Path | None = None,
    environment: Mapping[str, str] = ENVIRONMENT,
) -> Iterator[ForkServerProcess]:
    """A process that runs a Python file; at the end of the block, it is killed with all processes of its group.

    Args:
        script: the file, whose folder is the first to import from.
        arguments: of the command.
        cwd: working directory.
        stdin, output, error: files of the standard streams; error None: `output`.
        environment: all environment variables. Those that other packages read when they are imported have no effect.
    """
    with patch.dict(os.environ, ENVIRONMENT, clear=True):
        forkserver.ensure_running()
    streams = stdin, output, error or output
    process = SERVER.Process(target=_run, args=(script, list(map(str, arguments)), cwd, streams, dict(environment)))
    process.start()
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()  # where it has no group yet
        process.join()


def run_script(script: Path, *arguments: object, timeout: float = 300, **options: object) -> CompletedProcess:
    """Runs a script as `started_script` does, and returns the finished process with its output.

    The options are those of `started_script`; `input`, a text, takes the place of `stdin`.
    """
    return run_processes([{}], script, arguments, timeout, **options)


def run_processes(
    variables: Sequence[Mapping[str, str]],
    script: Path,
    arguments: Sequence[object],
    timeout: float,
    input: str = "",
    environment: Mapping[str, str] = ENVIRONMENT,
    **options: object,
) -> CompletedProcess:
    """A process of the script for each of these additional environment variables, returned as one.

    Its exit code is that of the process, or of several 1 where one has failed.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        streams = {name: Path(folder, name) for name in ("stdin", "output", "error")}
        streams["stdin"].write_text(input)
        processes = [
            stack.enter_context(
                started_script(script, *arguments, **streams, environment={**environment, **more}, **options)
            )
            for more in variables
        ]
        end, failed = time.monotonic() + timeout, False
        while running := [process for process in processes if process.exitcode is None]:
            if not wait([process.sentinel for process in running], max(0, end - time.monotonic())):
                break
            if not failed and any(process.exitcode for process in processes):
                failed, end = True, min(end, time.monotonic() + GRACE)
        output, error = (streams[name].read_text(errors="replace") for name in ("output", "error"))
        codes = [process.exitcode for process in processes]
        if None in codes and not failed:
            raise TimeoutExpired([script, *arguments], timeout, output, error)
        return CompletedProcess([script, *arguments], codes[0] if len(codes) == 1 else int(any(codes)), output, error)


def _run(script: Path, arguments: list[str], cwd: Path, streams: Sequence[Path], environment: dict) -> None:
    """What a process of `started_script` does."""
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
    random.seed(), np.random.seed()  # All forks would have the same numbers.
    # Folders of the repository that pytest imports from are not there for a command.
    installed = [path for path in sys.path if path.startswith(sys.prefix) or not path.startswith(str(ROOT))]
    sys.path[:] = [str(Path(script).parent), *environment["PYTHONPATH"].split(os.pathsep), *filter(None, installed)]
    sys.argv = [str(script), *arguments]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        # Processes of multiprocessing leave these out.
        atexit._run_exitfuncs()
