import os

import pytest

from mmgpt.engine.atomic import written_whole


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with written_whole(path) as part:
        part.write_text("half")
        assert part.parent == path.parent and not path.exists()
        part.write_text("whole")
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


def test_a_folder_appears_when_it_is_complete(tmp_path):
    (tmp_path / "folder.part").mkdir()
    (tmp_path / "folder.part" / "of a killed process").touch()
    with written_whole(tmp_path / "folder") as part:
        part.mkdir()
        (part / "a.txt").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("folder", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path, error, folder):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(error), written_whole(path) as part:
        (part.mkdir if folder else part.touch)()
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_folder_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    with pytest.raises(OSError), written_whole(tmp_path / "folder") as part:
        part.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("folder", [True, False])
def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, folder):
    path, done = tmp_path / "a", []
    names = {}
    monkeypatch.setattr(os, "fsync", lambda file: done.append(names[os.fstat(file).st_ino]))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("renamed"), replace(*paths)))
    with written_whole(path) as part:
        if folder:
            part.mkdir()
        file = part / "b" if folder else part
        file.write_text("whole")
        names = {file.stat().st_ino: "file", tmp_path.stat().st_ino: "parent", part.stat().st_ino: "file"}
        if folder:
            names[part.stat().st_ino] = "folder"
    assert done == ["file", *["folder"] * folder, "renamed", "parent"]


def test_an_error_names_the_file(tmp_path):
    with pytest.raises(OSError, match="a.txt") as raised, written_whole(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert raised.value.filename == str(tmp_path / "a.txt")
