"""The steps of tools/quickstart.sh --real, with small commands in place of the real ones."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import quickstart

from tests.tools.test_setup_env import TOOLS, project, run_bash  # noqa: F401 (fixture)


def test_a_step_keeps_its_log_its_seconds_and_its_memory(tmp_path):
    steps = quickstart.Steps(tmp_path)
    steps.run(
        "convert", [sys.executable, "-c", "print('one')"], [sys.executable, "-c", "x = bytearray(2**28); print('two')"]
    )
    assert (tmp_path / "convert.txt").read_text() == "one\ntwo\n"
    [(name, step)] = json.loads((tmp_path / quickstart.STEPS).read_text()).items()
    assert name == "convert"
    assert step["seconds"] > 0
    assert 0.25 < step["peak_memory_gib"] < 4


def test_a_second_start_adds_to_the_first(tmp_path):
    quickstart.Steps(tmp_path).run("train", [sys.executable, "-c", "print('one')"])
    (tmp_path / quickstart.STEPS).write_text('{"train": {"seconds": 1000, "peak_memory_gib": 99}}')
    quickstart.Steps(tmp_path).run("train", [sys.executable, "-c", "print('two')"])
    step = json.loads((tmp_path / quickstart.STEPS).read_text())["train"]
    assert 1000 < step["seconds"] < 1100
    assert step["peak_memory_gib"] == 99
    assert (tmp_path / "train.txt").read_text() == "one\ntwo\n"


def test_a_command_that_fails_ends_the_run_with_its_status(tmp_path):
    with pytest.raises(SystemExit) as stop:
        quickstart.Steps(tmp_path).run("train", [sys.executable, "-c", "raise SystemExit(3)"], ["false"])
    assert stop.value.code == 3


def test_a_signal_reaches_the_command_that_runs(tmp_path):
    child = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(143)));"
    child += " print('ready', flush=True); signal.pause()"
    code = "import signal, sys, quickstart; from pathlib import Path;"
    code += " signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143));"
    code += f" quickstart.Steps(Path({str(tmp_path)!r})).run('train', [sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(quickstart.__file__).parent)
    log = tmp_path / "train.txt"
    # An unbuffered process writes a line and its end one after the other.
    while "ready\n" not in (log.read_text() if log.exists() else ""):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert log.read_text() == "ready\nsaved\n"


def test_what_is_there_is_not_converted_again(tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "PARTS", tmp_path)
    monkeypatch.setattr(quickstart, "DATA", tmp_path)
    monkeypatch.setattr(quickstart, "package_folder", lambda name: tmp_path)
    (tmp_path / "model.gguf").touch()
    first = quickstart.convert_commands()
    (tmp_path / "language").mkdir()
    (tmp_path / "train_questions.jsonl").touch()
    second = quickstart.convert_commands()
    assert [command[2] for command in first][0] == "from-gguf"
    assert len(first) - len(second) == 2
    questions = str(tmp_path / quickstart.TRAIN_QUESTIONS)
    assert not [command for command in second if "from-gguf" in command or questions in command]


def test_the_script_passes_its_options_on(project):  # noqa: F811 (the fixture)
    shutil.copy(TOOLS / "quickstart.sh", project / "tools")
    python = project.parent / "bin" / "python3.11"
    python.write_text(python.read_text().replace("esac", '    projects/*) echo "$*";;\nesac'))
    _, shown = run_bash(project, f"bash '{project}/tools/quickstart.sh' --real --seed 2")
    assert shown.splitlines()[-1] == "projects/real_parts/quickstart.py --seed 2"


def test_an_unknown_option_is_refused(project):  # noqa: F811 (the fixture)
    shutil.copy(TOOLS / "quickstart.sh", project / "tools")
    _, shown = run_bash(project, f"bash '{project}/tools/quickstart.sh' --rael", code=2)
