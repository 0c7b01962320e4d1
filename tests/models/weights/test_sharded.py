"""Folders of tensors' parts; with several processes see tests/tools/test_sharded_train.py."""

import pytest
import torch

from mmgpt.models.weights.reader import read_weights
from mmgpt.models.weights.sharded import join, read_shards, write_shards


def test_written_and_read(tmp_path):
    folder = tmp_path / "iter_3.shards"
    tensors = {"state_dict.a": torch.randn(3, 2), "optimizer.0.exp_avg": torch.ones(2, dtype=torch.bfloat16)}
    folder.mkdir()
    (folder / "old.safetensors").touch()
    write_shards(folder, tensors)
    read = read_shards(folder, 1)
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensors[name]) for name in read)
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="which is missing: .*iter_3.shards"):
        read_shards(tmp_path / "iter_3.shards", 1)


def test_parts_that_are_missing_or_cut_are_told(tmp_path):
    folder, path = tmp_path / "iter_3.shards", tmp_path / "iter_3.pth"
    write_shards(folder, {"state_dict.a": torch.randn(3, 2)})
    for files, message in (
        (2, "has the parts of 1 processes, and there were 2"),
        (1, "iter_3.shards.* cannot be read"),
    ):
        torch.save({"state_dict": {}, "meta": {"shards": {"folder": folder.name, "files": files}}}, path)
        [part] = folder.iterdir()
        part.write_bytes(part.read_bytes()[:20])
        with pytest.raises(ValueError, match=message):
            read_weights(path)


def test_joined_with_their_checkpoint():
    one, two = torch.zeros(1), torch.ones(1)
    content = {"state_dict": {"b": two}, "optimizer": {"state": {0: {"step": two}}, "param_groups": []}}
    made = join(content, {"state_dict.x.a": one, "optimizer.0.exp_avg": one, "optimizer.4.exp_avg": two})
    assert made["state_dict"] == {"b": two, "x.a": one}
    assert made["optimizer"]["state"] == {0: {"step": two, "exp_avg": one}, 4: {"exp_avg": two}}
