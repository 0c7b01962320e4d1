"""The process that runs the parts of the GPU check: failures, hangs and deaths of parts."""

from importlib import import_module

import pytest

from benchmarks.gpu.parts import PARTS, Figure, Setting, Worker

STUBS = {
    name: f"tests.benchmarks.gpu.stub_parts:{name}" for name in ("passing", "failing", "hanging", "dying", "skipped")
}


@pytest.fixture
def run(tmp_path):
    """A function that runs a stub part: status, reason, and figures."""
    worker = Worker(Setting("cpu", True), tmp_path / "log.txt", STUBS)

    def result(name, seconds=60):
        figures = []
        return *worker.run(name, seconds, figures.append), figures

    yield result
    worker.close()


def test_a_part_that_fails_hangs_or_dies_leaves_the_others_alone(run, tmp_path):
    status, reason, figures = run("passing")
    assert (status, reason) == ("passed", "")
    assert figures[1] == Figure("share", 51.0, "%", "50 % at least", True)
    process = figures[0].value
    # A part that passes or is skipped leaves its process to the next one, any other gets it killed.
    assert run("skipped") == ("skipped", "it needs a GPU, not cpu", [])
    assert run("passing")[2][0].value == process
    assert run("failing") == ("failed", "ValueError: the losses differ", [Figure("before", 1)])
    assert run("passing")[2][0].value != process
    assert run("hanging", 5) == ("timed out", "ended after 5 s", [Figure("before", 2)])
    assert run("dying") == ("failed", "its process died with exit code 7; see log.txt", [Figure("before", 3)])
    assert run("passing")[0] == "passed"
    log = (tmp_path / "log.txt").read_text()
    assert "=== hanging\n" in log
    assert "ValueError: the losses differ\n" in log


def test_the_functions_of_all_parts_exist():
    for part in PARTS.values():
        module, _, function = part.function.partition(":")
        assert callable(getattr(import_module(module), function))
