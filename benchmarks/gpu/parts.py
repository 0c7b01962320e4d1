"""The parts of the check by name, and a process that runs them, each within its own time; this file is torch-free."""

import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

STATUSES = ("passed", "failed", "timed out", "skipped")
GRACE = 10  # seconds that a process has to end by itself


class Part(NamedTuple):
    """A part of the check: the generator function of its figures as 'module:name', its limit in seconds, its title."""

    function: str
    seconds: int
    title: str


# In the order of their importance, since the time on a GPU may end before the last one.
PARTS = {
    "device": Part("benchmarks.gpu.device:device", 60, "versions, device, measured limits"),
    "training": Part("benchmarks.gpu.training:training", 120, "LoRA training, packed rows"),
    "decoding": Part("benchmarks.gpu.answers:decoding", 180, "decoding"),
    "turns": Part("benchmarks.gpu.answers:turns", 60, "prefill, first and second turn"),
    "tests": Part("benchmarks.gpu.device:tests", 100, "the tests that need a GPU"),
    "processes": Part("benchmarks.gpu.equality:processes", 60, "DDP and FSDP2 with one process"),
    "precision": Part("benchmarks.gpu.equality:precision", 60, "--amp, bfloat16, int8, int4"),
    "attention": Part("benchmarks.gpu.training:attention", 80, "attention of packed rows"),
    "server": Part("benchmarks.gpu.answers:server", 80, "tools' server under load"),
    "compile": Part("benchmarks.gpu.training:compiled_steps", 150, "compiled training"),
}


class Setting(NamedTuple):
    """How parts run: the `device` as torch names it, and whether at `tiny` size, as a rehearsal."""

    device: str
    tiny: bool


class Figure(NamedTuple):
    """A measured value, or a text such as a version.

    Attributes:
        goal: what is aimed at, in words; `met` says whether it is reached.
    """

    name: str
    value: float | str
    unit: str = ""
    goal: str = ""
    met: bool | None = None


class Skipped(Exception):
    """Raised by a part that is not possible here, with the reason."""


class Worker:
    """A process that runs parts one after another; after a failure the next part gets a new one.

    Imports take as long as a part, so that they are not repeated as long as all is well.

    Args:
        setting: of all parts.
        log: file that gets what the parts print.
        parts: the functions of the parts by name, as in `Part`.
    """

    def __init__(self, setting: Setting, log: Path, parts: Mapping[str, str]):
        self.setting, self.log, self.parts = setting, log, dict(parts)
        self.process = None

    def run(self, name: str, seconds: float, add: Callable[[Figure], None]) -> tuple[str, str]:
        """The status of a part, one of STATUSES, and the reason unless it passed; each figure is added at once.

        Args:
            seconds: after which the part is ended.
        """
        if self.process is None:
            # A forked process could not use the GPU.
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            self.process = context.Process(target=_work, args=(theirs, self.setting, self.log, self.parts))
            self.process.start()
            theirs.close()
        end = time.monotonic() + seconds
        try:
            self.connection.send(name)
            while self.connection.poll(max(end - time.monotonic(), 0)):
                message = self.connection.recv()
                if not isinstance(message, Figure):
                    status, reason = message
                    if status == "failed":
                        self.kill()
                    return status, reason
                add(message)
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            self.kill()
            return "failed", f"its process died with exit code {code}; see {self.log.name}"
        self.kill()
        return "timed out", f"ended after {seconds:.0f} s"

    def close(self) -> None:
        """Let the process end; kill it if it does not within seconds."""
        if self.process is not None:
            self.connection.close()
            self.process.join(GRACE)
            self.kill()

    def kill(self) -> None:
        """Kill the process, and those that it has started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            # It has ended, or has not become the first of its group yet.
            self.process.kill()
        self.process.join()
        self.connection.close()
        self.process = None


def _work(connection: Connection, setting: Setting, log: Path, parts: Mapping[str, str]) -> None:
    """The process of a Worker: runs the parts whose names come, and sends their figures, then status and reason."""
    os.setsid()
    with log.open("a") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    while True:
        try:
            name = connection.recv()
        except EOFError:
            return
        print(f"=== {name}", flush=True)
        try:
            if "benchmarks.gpu.models" in sys.modules:  # An earlier part has imported it, and may have left something.
                sys.modules["benchmarks.gpu.models"].free_memory()
            module, _, function = parts[name].partition(":")
            figures: Iterator[Figure] = getattr(importlib.import_module(module), function)(setting)
            for figure in figures:
                connection.send(figure)
            result = "passed", ""
        except Skipped as reason:
            result = "skipped", str(reason)
        except Exception as error:
            traceback.print_exc()
            result = "failed", f"{type(error).__name__}: {str(error)[:500]}"
        sys.stdout.flush()
        connection.send(result)
