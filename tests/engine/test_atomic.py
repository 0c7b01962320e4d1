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
