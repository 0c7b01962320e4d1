"""One run at a time in a folder."""

import json
import os
import subprocess
import sys

import pytest

from mmgpt.utils.lock import is_first_process, locked

HOLDS = """
import os, sys, time
from mmgpt.utils.lock import locked
with locked(sys.argv[1], "advice"):
    if os.fork() == 0:  # as processes that load data do
        time.sleep(600)
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a folder, with a child."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline() == b"locked\n"
    yield process
    os.killpg(process.pid, 9)
    process.wait()


def test_a_folder_in_use_names_its_holder(tmp_path, holder):
    with pytest.raises(ValueError, match=rf"in use by process {holder.pid} on .* since \d{{4}}-.*: go away"):
        with locked(tmp_path, "go away"):
            pass
    assert json.loads((tmp_path / ".lock").read_text())["process"] == holder.pid


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder, capsys):
    holder.kill()
    holder.wait()
    with locked(tmp_path, "advice"):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
    assert f"was left by process {holder.pid} on " in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_lock_is_free_after_its_block_however_it_ends(tmp_path, capsys):
    for error in (None, ValueError):
        try:
            with locked(tmp_path / "new", "advice"):
                if error:
                    raise error
        except ValueError:
            pass
        assert not list((tmp_path / "new").iterdir())
    assert not capsys.readouterr().out


def test_a_folder_that_is_gone_at_the_end(tmp_path):
    with locked(tmp_path / "new", "advice"):
        (tmp_path / "new" / ".lock").unlink()
        (tmp_path / "new").rmdir()


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def refused(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refused)
    with locked(tmp_path, "advice"):
        assert "cannot be locked (No locks available)" in capsys.readouterr().err


@pytest.mark.parametrize("launcher", ["none", "pytorch", "slurm", "mpi"])
def test_the_first_process(launcher, monkeypatch):
    assert is_first_process(launcher)
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.setenv(name, "3")
    assert is_first_process(launcher) == (launcher == "none")
