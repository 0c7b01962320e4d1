"""Batches of streamed datasets: every sample once, weights, equally many batches, resuming."""

from collections import Counter

import pytest
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from mmgpt.datasets import InstructionDataset, JointBatchSampler, JointDataset, StreamBatchSampler
from tests.helpers.shards import records, write_lines, write_tar

SIZES = (7, 3, 13)
COUNT = sum(SIZES)


@pytest.fixture
def joint(tmp_path, monkeypatch):
    """A function that builds a joint dataset of streams and one of JSON lines, without images in the samples."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in "ab":
        for i, size in enumerate(SIZES):
            write_tar(tmp_path / name / f"{i}.tar", records(size, sum(SIZES[:i])))
    lines = write_lines(tmp_path / "lines", records(8))
    stream = dict(shuffle_buffer=4)

    def build(weight=1.0):
        common = dict(parser="conversation", pipeline=[])
        a = InstructionDataset(name="a", ann_file=f"{tmp_path}/a/*.tar", stream=stream, weight=weight, **common)
        lines_dataset = InstructionDataset(name="lines", **lines, **common)
        b = InstructionDataset(name="b", ann_file=f"{tmp_path}/b/*.tar", source="language", stream=stream, **common)
        return JointDataset(visual=[a, lines_dataset], language=[b])

    return build


def loader(joint, epoch=0, rank=0, world_size=1, workers=0, start=0, streams=2):
    """Loader of the names and random states of samples."""
    sampler = DefaultSampler(joint, shuffle=True, seed=3)
    sampler.rank, sampler.world_size = rank, world_size
    sampler.set_epoch(epoch)
    batches = StreamBatchSampler(sampler, batch_size=3, language_batch_size=1, streams=streams)
    batches.start = start
    return DataLoader(joint, batch_sampler=batches, num_workers=workers, collate_fn=_names)


def _names(batch):
    return [(sample["dataset"], sample["id"], sample["rng"].integers(1 << 30)) for sample in batch]


@pytest.mark.parametrize(("workers", "streams"), [(0, 1), (0, 3), (2, 2)])
def test_two_processes_see_every_sample_once_in_equally_many_batches(joint, workers, streams):
    joint = joint()
    for epoch in (0, 1):
        seen = []
        for rank in range(2):
            batches = list(loader(joint, epoch, rank, 2, workers, streams=streams))
            assert len(batches) == 6
            assert sum(len(batch) == 4 for batch in batches) >= 5
            assert all([name for name, *_ in batch].count("b") == 1 for batch in batches)
            seen += [sample for batch in batches for sample in batch]
        counts = Counter(sample[:2] for sample in seen)
        assert {key for key in counts if key[0] == "a"} == {("a", f"sample-{i}") for i in range(COUNT)}
        assert sorted(Counter(name for name, _ in counts.elements()).items()) == [("a", 23), ("b", 12), ("lines", 8)]
        assert {count for (name, _), count in counts.items() if name != "b"} == {1}


def test_weights_are_right_to_a_sample_over_epochs(joint):
    joint, passes = joint(weight=0.25), Counter()
    for epoch in range(4):
        batches = [list(loader(joint, epoch, rank, 2)) for rank in range(2)]
        counts = Counter(sample[:2] for process in batches for batch in process for sample in batch)
        assert Counter(name for name, _ in counts.elements())["a"] == 6
        passes.update({key: count for key, count in counts.items() if key[0] == "a"})
    # Four epochs have 24 samples: a pass over 23, and one of the next pass.
    assert sorted(passes.values()) == [1] * 22 + [2]
    batches = [batch for epoch in range(4) for batch in loader(joint, epoch)]
    assert len(batches) == len({sample[1] for batch in batches for sample in batch if sample[0] == "b"}) == 20


@pytest.mark.parametrize("workers", [0, 2])
def test_the_batches_after_a_resume_are_those_of_an_unbroken_run(joint, workers):
    joint = joint()
    whole = list(loader(joint, 1, rank=1, world_size=2, streams=4))
    for start in range(1, 6):
        assert list(loader(joint, 1, 1, 2, workers, start, streams=4)) == whole[start:]
    assert list(loader(joint, 2, 1, 2, streams=4)) != whole


def test_shards_are_read_in_order_without_shuffling(joint):
    sampler = DefaultSampler(joint(), shuffle=False)
    batches = list(StreamBatchSampler(sampler, batch_size=31, streams=1, language_batch_size=2))
    assert batches == [[*range(31), 31, 32]]


def test_settings_that_cannot_be_read_are_errors(joint):
    joint = joint()
    sampler = DefaultSampler(joint)
    with pytest.raises(ValueError, match="num_workers=2 must divide streams=3"):
        list(loader(joint, workers=2, streams=3))
    with pytest.raises(ValueError, match="datasets a, b are streams, from which batch_sampler=.*'StreamBatchSampler'"):
        JointBatchSampler(sampler, batch_size=1, language_batch_size=1)
    with pytest.raises(ValueError, match="language_batch_size=0, but there are 23 such samples"):
        StreamBatchSampler(sampler, batch_size=1)
    with pytest.raises(ValueError, match="streams=0: at least one"):
        StreamBatchSampler(sampler, batch_size=1, language_batch_size=1, streams=0)
    with pytest.raises(ValueError, match="needs a JointDataset, got InstructionDataset"):
        StreamBatchSampler(DefaultSampler(joint.visual[0]), batch_size=1)
