"""Datasets of shards that are read as streams: the samples of indexed shards, each shard read once, errors."""

import gzip
import io
import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmgpt.cli import check_files
from mmgpt.datasets import ImageControl, InstructionDataset
from mmgpt.datasets.inspection.check import read_datasets
from mmgpt.datasets.inspection.views import shown_datasets
from mmgpt.datasets.shards.streams import StreamedShards, expand_numbers
from mmgpt.datasets.transforms import LoadFeatures
from mmgpt.datasets.transforms.examples import AddExamples
from mmgpt.utils.errors import SampleError
from tests.helpers.shards import png, records, write_arrow, write_members, write_parquet, write_tar

SIZES = (7, 3, 13)
COUNT = sum(SIZES)


def write(folder, writer, suffix):
    """Writes records into shards of uneven sizes, and returns the pattern of their paths."""
    for i, size in enumerate(SIZES):
        writer(folder / f"{i}{suffix}", records(size, sum(SIZES[:i])))
    return str(folder / f"*{suffix}")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Cache folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmgpt"


@pytest.fixture
def make(steps):
    """A function that builds a streamed dataset; its buffer holds 4 samples."""

    def build(ann_file, **more):
        stream = dict(shuffle_buffer=4)
        return InstructionDataset(
            **dict(parser="conversation", ann_file=ann_file, stream=stream, pipeline=steps(16)) | more
        )

    return build


@pytest.fixture
def tars(tmp_path):
    """Pattern of the paths of tar shards."""
    return write(tmp_path / "tars", write_tar, ".tar")


@pytest.fixture
def opened(monkeypatch):
    """Names of the shards that are opened, in a list that grows."""
    names, read = [], StreamedShards.read

    def log(self, shard):
        names.append(Path(self.files[shard]).name)
        return read(self, shard)

    monkeypatch.setattr(StreamedShards, "read", log)
    return names


def assert_same(actual, expected):
    """Compares two outputs of a pipeline to the bit, except for the names of images."""
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(actual[name], value)
        elif name != "meta":
            assert actual[name] == value
    assert {**actual["meta"], "images": None} == {**expected["meta"], "images": None}


@pytest.mark.parametrize("kind", ["tar", "parquet", "arrow"])
def test_samples_are_those_of_indexed_shards(tmp_path, make, kind):
    if kind == "arrow":
        pattern = str(write_arrow(tmp_path / "saved", records(COUNT)))
    else:
        pattern = write(tmp_path / kind, dict(tar=write_tar, parquet=write_parquet)[kind], f".{kind}")
    streamed, indexed = make(pattern), make(pattern, stream=None)
    assert len(streamed) == len(indexed) == COUNT
    for index in (*range(COUNT), 2, COUNT - 1, COUNT + 5):
        assert_same(streamed[index], indexed[index])
    single = make(pattern, single_turns=True)
    assert [sample["meta"]["id"] for sample in single] == [
        sample["meta"]["id"] for sample in make(pattern, stream=None, single_turns=True)
    ]


def test_addresses_commands_and_compressed_files(tmp_path, make, tars):
    expected = [sample["meta"]["id"] for sample in make(tars)]
    memory = fsspec.filesystem("memory")
    for path in sorted((tmp_path / "tars").iterdir()):
        memory.pipe(f"/bucket/{path.name}", path.read_bytes())
        path.with_suffix(".tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    for address in ("memory://bucket/*.tar", f"pipe:cat {tmp_path}/tars/{{0..2}}.tar", f"{tmp_path}/tars/*.tar.gz"):
        dataset = make(address, data_root="data")
        assert [sample["meta"]["id"] for sample in dataset] == expected
        assert dataset.get_data_info(8)["record"] == 1
        assert dataset[9]["pixels"].shape == (1, 3, 16, 16)
    assert dataset.files[1].endswith("/1.tar.gz")
    assert expand_numbers("a{08..10}/{1..2}") == [f"a{i}/{j}" for i in ("08", "09", "10") for j in (1, 2)]


@pytest.mark.parametrize("buffer", [4, 1000, 30])
def test_an_order_reads_each_shard_once(make, tars, opened, buffer):
    dataset = make(tars, stream=dict(shuffle_buffer=buffer))
    orders = [dataset.data_list.order(np.random.default_rng(seed)).tolist() for seed in range(3)]
    assert len(set(map(tuple, orders))) == 3
    opened.clear()
    for order in orders:
        assert sorted(order) == list(range(COUNT))
        for index in order:
            dataset.get_data_info(index)
        assert sum(len(samples) for samples, _ in dataset.data_list.runs.values()) <= max(buffer, 4)
    # A shard that ends an order may begin the next one.
    assert len(opened) == 3 if buffer == 1000 else 6 <= len(opened) <= 9
    if buffer == 30:
        assert any({index < 7 for index in order[:10]} == {True, False} for order in orders)


def test_shards_are_counted_once(tmp_path, make, tars, opened, cache):
    make(tars)
    assert opened == ["0.tar", "1.tar", "2.tar"]
    make(tars, weight=2)
    assert len(opened) == 3
    make(tars, single_turns=True)
    assert len(opened) == 6
    write_tar(tmp_path / "tars" / "1.tar", records(4))
    assert len(make(tars)) == COUNT + 1
    assert len(opened) == 9
    sizes = sorted(cache.iterdir())[0]
    assert sum(json.loads(sizes.read_text()).values()) >= COUNT
    (tmp_path / "sizes.json").write_text(json.dumps({"0.tar": 7, "1.tar": 4, "2.tar": 13}))
    stream = dict(shuffle_buffer=4, sizes=str(tmp_path / "sizes.json"))
    assert len(make(tars, stream=stream)) == COUNT + 1
    assert len(opened) == 9
    (tmp_path / "sizes.json").write_text(json.dumps({"0.tar": 7, "2.tar": 13}))
    with pytest.raises(ValueError, match="sizes.json has no number of samples of 1 shards: '1.tar'"):
        make(tars, stream=stream)


@pytest.mark.parametrize(("size", "reason"), [(2, "3 or more samples .*, and 2"), (5, "3 samples .*, and 5")])
def test_a_shard_of_another_size_is_an_error(tmp_path, make, tars, size, reason):
    (tmp_path / "sizes.json").write_text(json.dumps({"0.tar": 7, "1.tar": size, "2.tar": 13}))
    dataset = make(tars, stream=dict(shuffle_buffer=4, sizes=str(tmp_path / "sizes.json")))
    with pytest.raises(SampleError, match=f"1.tar': the shard gives {reason} according to .*/sizes.json: correct"):
        for index in range(7 + size):
            dataset[index]


def test_the_file_of_counts_of_a_command_is_named(tmp_path, make, tars, cache):
    make(f"pipe:cat {tmp_path}/tars/1.tar")
    [counts] = cache.iterdir()
    write_tar(tmp_path / "tars" / "1.tar", records(4))
    dataset = make(f"pipe:cat {tmp_path}/tars/1.tar")
    with pytest.raises(SampleError, match=f"gives 4 or more samples .*, and 3 according to {counts}: .*delete it"):
        dataset[0]
    counts.unlink()
    assert len(make(f"pipe:cat {tmp_path}/tars/1.tar")) == 4


def test_an_error_of_a_store_names_the_shard(tmp_path, make, tars, monkeypatch):
    class PayloadError(Exception):
        """Error of a store that is no OSError."""

    class Interrupted(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 5000:
                raise PayloadError("not all of the response came")
            return super().read(size)

    content = (tmp_path / "tars" / "0.tar").read_bytes()
    monkeypatch.setattr(fsspec, "open", lambda *args: Interrupted(content))
    with pytest.raises(SampleError, match=r"tars/0.tar'.*: cannot be read: PayloadError: not all of the response came"):
        make(tars)


def test_a_refused_record_counts_once_a_reading(tmp_path, make):
    rows = [dict(row, turns=[]) if i == 1 else row for i, row in enumerate(records(3))]
    dataset = make(str(write_tar(tmp_path / "0.tar", rows)), on_error="skip")
    assert (len(dataset), dataset.dropped.totals["refused"]) == (2, 0)
    assert len(list(dataset)) == 2
    assert dataset.dropped.totals["refused"] == 1


def test_broken_records_and_images(tmp_path, make):
    rows = records(4)
    broken = [("b.json", b"{"), ("c.json", json.dumps({**rows[1], "id": "c"}).encode()), ("c.png", b"no image")]
    good = [("d.json", json.dumps({**rows[1], "id": "d"}).encode()), ("d.png", png("d"))]
    path = str(write_members(tmp_path / "0.tar", [*broken, *good]))
    with pytest.raises(SampleError, match="0.tar', record 0, id 'b': its .json is not valid JSON"):
        make(path)
    dataset = make(path, on_error="skip")
    assert len(dataset) == 2
    assert dataset[0]["meta"]["id"] == "d"
    assert dataset.dropped.totals["failed"] == 1
    write_members(tmp_path / "0.tar", [*broken[1:], *good])
    with pytest.raises(SampleError, match=r"0.tar', record 0, id 'c', image '0.tar::c.png@0\+8': cannot be read"):
        make(path)[0]


def test_a_shard_that_cannot_be_read_is_an_error(tmp_path, make, tars):
    with pytest.raises(SampleError, match=r"no.tar': the command ended with status 1: not a readable tar file"):
        make(f"pipe:cat {tmp_path}/no.tar")
    with pytest.raises(SampleError, match="'pipe:cat .*; exit 3': the command ended with status 3"):
        make(f"pipe:cat {tmp_path}/tars/0.tar; exit 3")
    with pytest.raises(FileNotFoundError, match="no annotation file 'memory://bucket/no.tar'"):
        make("memory://bucket/no.tar")
    (tmp_path / "sizes.json").write_text('{"no.tar": 1}')
    dataset = make("memory://bucket/no.tar", stream=dict(shuffle_buffer=1, sizes=str(tmp_path / "sizes.json")))
    with pytest.raises(SampleError, match=r"no.tar': cannot be read: FileNotFoundError"):
        dataset[0]
    with pytest.raises(FileNotFoundError, match=r"no annotation file 'memory://empty/\*.tar'"):
        make("memory://empty/*.tar")
    content = (tmp_path / "tars" / "0.tar").read_bytes()
    (tmp_path / "tars" / "0.tar").write_bytes(content[:5000])
    with pytest.raises(SampleError, match="0.tar', record .: not a readable tar file: unexpected end of data"):
        make(tars)
    with pytest.raises(
        ValueError, match=r"0.csv is not read as a stream: choose among .tar, .tar.gz, .*, .parquet, .arrow, or pipe:"
    ):
        make("memory://bucket/0.csv")
    for name in ("0.tar.zst", "0.parquet.gz", "0.tar.gz.1"):
        with pytest.raises(ValueError, match=f"{name} is not read as a stream"):
            make(f"memory://bucket/{name}")


def test_files_that_a_range_lacks_are_named(tmp_path, tars):
    assert len(StreamedShards(f"{tmp_path}/tars/{{0..2}}.tar").files) == 3
    with pytest.raises(FileNotFoundError, match=r"^no annotation file '\S+/tars/3.tar', '\S+/tars/4.tar'$"):
        StreamedShards(f"{tmp_path}/tars/{{1..4}}.tar")
    with pytest.raises(FileNotFoundError, match=r"^no annotation file '\S+/{2..0}.tar'$"):
        StreamedShards(f"{tmp_path}/tars/{{2..0}}.tar")


def test_what_a_stream_cannot_do_is_refused(make, tars, steps, monkeypatch):
    dataset = make(tars)
    with pytest.raises(ValueError, match="only training reads a stream: copy its shards, .* set stream=None"):
        make(tars, test_mode=True)
    with pytest.raises(ValueError, match="only training reads a stream"):
        make(tars, pipeline=steps(16, open_last=True))
    with pytest.raises(ValueError, match="another sampler .*: set dataset=.*JointDataset.*StreamBatchSampler"):
        list(DataLoader(dataset, num_workers=2))
    with pytest.raises(ValueError, match="kind='other': dataset 'conversation' is a stream"):
        ImageControl(dataset, "other")
    with pytest.raises(ValueError, match="is a stream, whose shards have to be copied for the check"):
        config = dict(type="InstructionDataset", parser="conversation", ann_file=tars, stream=dict(shuffle_buffer=4))
        list(read_datasets(dict(train_dataloader=dict(dataset=dict(config, pipeline=steps(16))))))
    with pytest.raises(ValueError, match="is a stream, whose shards have to be copied to be shown"):
        shown_datasets(dataset)
    with pytest.raises(ValueError, match=r"is a stream: its images have no files.*set image_steps='\${pixel_steps}'"):
        monkeypatch.setattr(LoadFeatures, "__init__", lambda self: None)
        make(tars, pipeline=[LoadFeatures()])
    with pytest.raises(ValueError, match="set weight instead of sample=3"):
        make(tars, sample=3)
    with pytest.raises(ValueError, match="is a stream, of which no examples can be drawn"):
        config = dict(parser="conversation", ann_file=tars, stream=dict(shuffle_buffer=4), pipeline=[])
        AddExamples(dict(type="InstructionDataset", **config), shots=1)
    with pytest.raises(ValueError, match="s3://a/0.tar is not a local file: set stream=dict"):
        make("s3://a/0.tar", stream=None)
    check_files(dict(train_dataloader=dict(dataset=dict(ann_file="s3://a/*.tar", stream=dict(shuffle_buffer=1)))))
    with pytest.raises(FileNotFoundError, match="no_sizes.json"):
        stream = dict(shuffle_buffer=1, sizes="no_sizes.json")
        check_files(dict(train_dataloader=dict(dataset=dict(ann_file="s3://a/*.tar", stream=stream))))
