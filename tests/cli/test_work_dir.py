import errno
import os
import shutil
import tempfile

import pytest
import torch

from mmgpt.cli.failures import DiskFault, is_disk_fault
from mmgpt.cli.work_dir import check_space, check_writable, is_complete, newest_checkpoint, remove_incomplete
from mmgpt.utils.atomic import part_path


def save(path, time=0):
    torch.save({"weight": torch.ones(300)}, path)
    os.utime(path, (time, time))


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def test_the_newest_complete_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path) == (None, [])
    save(tmp_path / "iter_3.pth", 30)
    save(tmp_path / "iter_12.pth", 20)  # of a run before
    save(tmp_path / "stopped.pth", 10)
    assert newest_checkpoint(tmp_path) == (tmp_path / "iter_3.pth", [])
    save(tmp_path / "stopped.pth", 40)
    assert newest_checkpoint(tmp_path)[0] == tmp_path / "stopped.pth"
    save(tmp_path / "best_iter_9.pth", 50)  # without an optimizer
    assert newest_checkpoint(tmp_path)[0] == tmp_path / "stopped.pth"


def test_of_two_checkpoints_of_one_time_the_later_step_is_the_newest(tmp_path):
    for name in ("iter_9.pth", "iter_12.pth"):
        save(tmp_path / name)
    (tmp_path / "latest.pth").symlink_to("iter_9.pth")
    assert newest_checkpoint(tmp_path)[0] == tmp_path / "iter_12.pth"


def test_a_link_to_nothing_and_cut_files_are_passed_over(tmp_path):
    for step in (3, 6, 9):
        save(tmp_path / f"iter_{step}.pth", step)
    (tmp_path / "latest.pth").symlink_to("iter_12.pth")
    cut(tmp_path / "iter_9.pth", -1)
    cut(tmp_path / "iter_6.pth", 0)
    names = [tmp_path / f"iter_{step}.pth" for step in (3, 6, 9)]
    os.utime(names[1], (6, 6))
    assert newest_checkpoint(tmp_path) == (names[0], [names[2], names[1]])


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_file_is_incomplete(tmp_path, fraction):
    path = tmp_path / "iter_1.pth"
    save(path)
    assert is_complete(path)
    cut(path, int(fraction * path.stat().st_size))
    assert not is_complete(path)


def test_a_file_that_ends_in_zeros_is_incomplete(tmp_path):
    path = tmp_path / "iter_1.pth"
    save(path)
    half = path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[:half] + bytes(half))
    assert not is_complete(path)


def test_only_incomplete_files_of_dead_processes_are_removed(tmp_path):
    name = part_path(tmp_path / "iter_3.pth").name
    dead = name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")  # above the largest process number of Linux
    others = ["iter_3.pth.part", name, "iter_3.pth", "answers.json.part"]
    for name in (dead, *others):
        (tmp_path / name).touch()
    folders = ["iter_3.shards", "iter_4.shards", "iter_5.shards", "my.shards", "iter_6.shards.part"]
    for folder in folders:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.safetensors").touch()
    (tmp_path / "iter_5.shards" / "notes.txt").touch()
    remove_incomplete(tmp_path)
    folders.remove("iter_4.shards")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, *folders])


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path):
    check_writable(tmp_path / "new" / "run")
    assert list((tmp_path / "new" / "run").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, number):
    def refused(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    with pytest.raises(DiskFault, match=rf"work directory '.*run' cannot be written \({os.strerror(number)}\)"):
        check_writable(tmp_path / "run")


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(ValueError, match=r"cannot be written \(File exists\)") as raised:
        check_writable(tmp_path / "run")
    assert not is_disk_fault(raised.value)


def test_too_little_room_for_a_checkpoint_is_a_disk_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9e9, 8e9, 5_000_000))
    check_space(tmp_path, 5_000_000)
    with pytest.raises(DiskFault, match="takes about 6 MB.* has 5 MB left"):
        check_space(tmp_path, 6_000_000)
