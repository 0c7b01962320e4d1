"""Sharded checkpoints of one process; for several processes see tests/tools/test_sharded_train.py."""

import pytest
import torch

from mmgpt.models.weights.reader import read_weights
from mmgpt.models.weights.sharded import merge_shards, read_shards, write_shards


def test_written_shards_are_read_as_whole_tensors(tmp_path):
    folder = tmp_path / "iter_3.shards"
    tensors = {"state_dict.a": torch.randn(3, 2), "optimizer.0.exp_avg": torch.ones(2, dtype=torch.bfloat16)}
    folder.mkdir()
    (folder / "old.safetensors").touch()
    write_shards(folder, tensors)
    read = read_shards(folder, 1)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in read)
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="which is missing: .*iter_3.shards"):
        read_shards(tmp_path / "iter_3.shards", 1)


def test_missing_or_truncated_shards_are_reported(tmp_path):
    folder, path = tmp_path / "iter_3.shards", tmp_path / "iter_3.pth"
    write_shards(folder, {"state_dict.a": torch.randn(3, 2)})
    for files, message in (
        (2, "has the shards of 1 processes, expected 2"),
        (1, "iter_3.shards.* cannot be read"),
    ):
        torch.save({"state_dict": {}, "meta": {"shards": {"folder": folder.name, "files": files}}}, path)
        [shard] = folder.iterdir()
        shard.write_bytes(shard.read_bytes()[:20])
        with pytest.raises(ValueError, match=message):
            read_weights(path)


def test_shards_are_merged_into_their_checkpoint():
    one, two = torch.zeros(1), torch.ones(1)
    content = {"state_dict": {"b": two}, "optimizer": {"state": {0: {"step": two}}, "param_groups": []}}
    merged = merge_shards(content, {"state_dict.x.a": one, "optimizer.0.exp_avg": one, "optimizer.4.exp_avg": two})
    assert merged["state_dict"] == {"b": two, "x.a": one}
    assert merged["optimizer"]["state"] == {0: {"step": two, "exp_avg": one}, 4: {"exp_avg": two}}
