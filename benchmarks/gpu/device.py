"""What the GPU is, and the project's tests that need one."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.report import setting as environment

from .models import measured_limits
from .parts import Figure, Setting, Skipped

ROOT = Path(__file__).parents[2]
OPTIONAL = ("bitsandbytes", "openai", "pytest")


def device(setting: Setting) -> Iterator[Figure]:
    """Versions, the device and its memory, the packages that parts need beside, and the measured limits."""
    facts = environment(torch.device(setting.device))
    yield Figure("device", facts["device"])
    for name, version in facts["versions"].items():
        yield Figure(name, version)
    if setting.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        yield Figure("memory", properties.total_memory / 2**30, "GiB")
        yield Figure("compute capability", f"{properties.major}.{properties.minor}")
        yield Figure("CUDA", str(torch.version.cuda))
    yield Figure("not installed", ", ".join(name for name in OPTIONAL if find_spec(name) is None) or "none")
    limits = measured_limits(setting)
    yield Figure("matrix products", limits.operations / 1e12, "TFLOP/s")
    yield Figure("memory traffic", limits.bytes / 1e9, "GB/s")


def tests(setting: Setting) -> Iterator[Figure]:
    """The tests with the marker `gpu`.

    Raises:
        Skipped: there is no GPU, or no pytest.
        ValueError: a test fails, or none runs; with the last lines of the output.
    """
    if setting.device == "cpu":
        raise Skipped("these tests need a GPU")
    if find_spec("pytest") is None:
        raise Skipped("pytest is not installed")
    # Collecting all tests would take as long as running these.
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout)}
    for kind, number in counts.items():
        yield Figure(f"tests {kind}", number)
    if done.returncode or not counts.get("passed"):
        raise ValueError("\n".join(done.stdout.splitlines()[-20:]))
