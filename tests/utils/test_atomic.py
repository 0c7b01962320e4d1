import json
import os
import shutil
import subprocess
import sys

import pytest

from mmgpt.utils.atomic import atomic_write, part_path, remove_abandoned


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as part:
        part.write_text("half")
        assert part.parent == path.parent
        assert not path.exists()
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with atomic_write(tmp_path / "folder") as part:
        part.mkdir()
        (part / "a.txt").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a.txt"]


WRITES = """
import json, sys
from mmgpt.utils.atomic import atomic_write
for i in range(150):
    with atomic_write(sys.argv[1]) as part:
        part.write_text(json.dumps([int(sys.argv[2])] * 5000))
"""


def test_two_writers_of_one_file_do_not_tear_it(tmp_path):
    path = tmp_path / "a.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITES, path, str(i)]) for i in range(2)]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            assert len(set(json.loads(path.read_text()))) == 1
            reads += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reads
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_in_one_process_have_different_temporary_files(tmp_path):
    with atomic_write(tmp_path / "a") as one, atomic_write(tmp_path / "a") as two:
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a").read_text() == "1"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.fixture
def abandoned():
    """A function that makes the part of a process that was killed while it wrote a file or a folder."""

    def make(path, folder=False):
        kill = f"p.{'mkdir' if folder else 'touch'}(); print(p); sys.stdout.flush(); os.kill(os.getpid(), 9)"
        code = (
            f"import os, sys; from pathlib import *; from mmgpt.utils.atomic import part_path; p = part_path({path!r})"
        )
        process = subprocess.run([sys.executable, "-c", f"{code}; {kill}"], capture_output=True, text=True)
        assert process.returncode == -9
        assert os.path.lexists(process.stdout.strip())
        return path.with_name(os.path.basename(process.stdout.strip()))

    return make


def test_only_parts_of_dead_processes_of_this_machine_are_removed(tmp_path, abandoned):
    mine = [tmp_path / "a.part", tmp_path / "a.txt.part", tmp_path / "a.0123-1.part", part_path(tmp_path / "a")]
    for path in mine:
        path.mkdir()
        (path / "mine").touch()
    dead, folder, other = abandoned(tmp_path / "a"), abandoned(tmp_path / "a", folder=True), abandoned(tmp_path / "b")
    elsewhere = tmp_path / ("b.00000000" + other.name.removeprefix("b.")[8:])
    elsewhere.touch()
    with atomic_write(tmp_path / "a") as part:
        part.touch()
    assert not dead.exists()
    assert not folder.exists()
    assert other.exists()
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*mine, elsewhere, tmp_path / "a"])
    assert all((path / "mine").exists() for path in mine)


def test_a_reused_process_number_is_another_process(tmp_path):
    alive = part_path(tmp_path / "a")
    machine, process, start, rest = alive.name.split(".")[1].split("-")
    before = tmp_path / f"a.{machine}-{process}-{int(start) - 1}-{rest}.part"
    for path in (alive, before):
        path.touch()
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [alive]
    shutil.rmtree(tmp_path)


def test_a_name_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("ä" * 127)
    with atomic_write(path) as part:
        part.touch()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("folder", [True, False])
def test_a_failure_keeps_the_old_file(tmp_path, error, folder):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as part:
        (part.mkdir if folder else part.touch)()
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_folder_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    with pytest.raises(OSError), atomic_write(tmp_path / "folder") as part:
        part.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("folder", [True, False])
def test_content_is_synced_before_it_is_renamed(tmp_path, monkeypatch, folder):
    path, done = tmp_path / "a", []
    names = {}
    monkeypatch.setattr(os, "fsync", lambda file: done.append(names[os.fstat(file).st_ino]))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("renamed"), replace(*paths)))
    with atomic_write(path) as part:
        if folder:
            part.mkdir()
        file = part / "b" if folder else part
        file.write_text("whole")
        names = {file.stat().st_ino: "file", tmp_path.stat().st_ino: "parent", part.stat().st_ino: "file"}
        if folder:
            names[part.stat().st_ino] = "folder"
    assert done == ["file", *["folder"] * folder, "renamed", "parent"]


def test_an_error_names_the_file(tmp_path):
    with pytest.raises(OSError, match="a.txt") as raised, atomic_write(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert raised.value.filename == str(tmp_path / "a.txt")
