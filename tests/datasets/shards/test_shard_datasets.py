"""Datasets of shards: the batches, errors and checks of the same data in JSON lines; their index."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing as multiprocessing
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from mmgpt.cli import check_files
from mmgpt.cli.files import data_files, fingerprints
from mmgpt.datasets import ImageControl, InstructionDataset, JointBatchSampler, JointDataset, collate_conversations
from mmgpt.datasets.feature_cache import image_key
from mmgpt.datasets.inspection.check import check_datasets, images_of, read_datasets
from mmgpt.datasets.inspection.text_checks import read_images
from mmgpt.datasets.inspection.views import read_rows
from mmgpt.datasets.shards import index
from mmgpt.evaluation.row_images import RowImages
from mmgpt.utils.errors import MissingImageError, SampleError
from tests.helpers.hub_cache import COMMIT, use_hub
from tests.helpers.shards import png, records, write_arrow, write_lines, write_members, write_parquet, write_tar

COUNT = 12


def tars(folder, rows):
    """Writes records into two tar files, and returns the arguments of their dataset."""
    write_tar(folder / "0.tar", rows[:7])
    write_tar(folder / "1.tar", rows[7:])
    return dict(ann_file=str(folder / "*.tar"))


def parquets(folder, rows):
    """Writes records into two Parquet files, and returns the arguments of their dataset."""
    write_parquet(folder / "0.parquet", rows[:7], compression="snappy", row_group_size=3)
    write_parquet(folder / "1.parquet", rows[7:], compression="none")
    return dict(ann_file=str(folder / "*.parquet"))


def saved(folder, rows):
    """Writes records as `Dataset.save_to_disk` does, and returns the arguments of their dataset."""
    return dict(ann_file=str(write_arrow(folder / "saved", rows)))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Cache folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmgpt"


@pytest.fixture
def make(steps):
    """A function that builds the dataset of some files."""

    def build(files, **more):
        return InstructionDataset(**{"parser": "conversation", "pipeline": steps(16)} | files | more)

    return build


@pytest.fixture(params=[tars, parquets, saved])
def shards(request, tmp_path):
    """Arguments of a dataset of shards."""
    return request.param(tmp_path / "shards", records(COUNT))


@pytest.fixture
def lines(tmp_path):
    """Arguments of the dataset of the same records in JSON lines."""
    return write_lines(tmp_path / "lines", records(COUNT))


def without_files(batch):
    """Batch without the names of its files."""
    metas = [{**meta, "images": None, "file": None, "record": None} for meta in batch["metas"]]
    return {**batch, "metas": metas}


def assert_equal(actual, expected):
    """Compares two batches to the bit."""
    actual, expected = without_files(actual), without_files(expected)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(actual[name], value)
        else:
            assert actual[name] == value


def loader(dataset, epoch, start, workers=0, **options):
    """Loader of sorted batches of an epoch, from a batch on."""
    joint = JointDataset(visual=[dataset])
    sampler = DefaultSampler(joint, shuffle=True, seed=3)
    sampler.set_epoch(epoch)
    batches = JointBatchSampler(sampler, batch_size=2, sorted_batches=3)
    batches.start = start
    collate = partial(collate_conversations, **options)
    return DataLoader(joint, batch_sampler=batches, num_workers=workers, collate_fn=collate)


@pytest.mark.parametrize("options", [{}, {"row_length": 400}])
def test_batches_are_those_of_json_lines(make, shards, lines, options):
    ours, theirs = make(shards, weight=1.5), make(lines, weight=1.5)
    for epoch in (0, 1):
        batches = zip(loader(ours, epoch, 0, **options), loader(theirs, epoch, 0, **options), strict=True)
        for actual, expected in batches:
            assert_equal(actual, expected)
    resumed, whole = loader(ours, 1, 4, workers=2, **options), list(loader(theirs, 1, 0, **options))
    for actual, expected in zip(resumed, whole[4:], strict=True):
        assert_equal(actual, expected)


@pytest.mark.parametrize("options", [{"sample": 5, "seed": 1}, {"single_turns": True}])
def test_samples_are_drawn_as_from_json_lines(make, shards, lines, options):
    ours, theirs = make(shards, **options), make(lines, **options)
    assert len(ours) == len(theirs) == (5 if "sample" in options else 15)
    for actual, expected in zip(ours, theirs, strict=True):
        assert_equal(collate_conversations([actual]), collate_conversations([expected]))


def test_the_number_of_a_record_is_that_in_its_shard(tmp_path, make):
    dataset = make(tars(tmp_path, records(COUNT)))
    info = dataset.get_data_info(9)
    assert (info["id"], info["file"], info["record"]) == ("sample-9", str(tmp_path / "1.tar"), 2)
    assert dataset.image_folder == str(tmp_path)


# ---- the index


@pytest.fixture
def reads(monkeypatch):
    """Paths of the shards that are read, in a list that grows."""
    from mmgpt.datasets.shards import files

    paths = []

    def read(path, name):
        paths.append(Path(path).name)
        return read_tar(path, name)

    read_tar = files.READERS[".tar"]
    monkeypatch.setitem(files.READERS, ".tar", read)
    return paths


def test_the_index_is_built_once_and_again_when_a_shard_has_changed(tmp_path, make, reads):
    files = tars(tmp_path / "shards", records(COUNT))
    make(files)
    assert [path.suffix for path in (tmp_path / "shards").iterdir()].count(index.SUFFIX) == 1
    assert reads == ["0.tar", "1.tar"]
    again = make(files)
    assert again.get_data_info(8)["id"] == "sample-8"
    assert len(reads) == 2
    os.utime(tmp_path / "shards" / "1.tar", ns=(1, 1))
    make(files)
    assert len(reads) == 4
    write_tar(tmp_path / "shards" / "2.tar", records(3, first=20))
    assert len(make(files)) == COUNT + 3
    assert len(reads) == 7
    assert [path.suffix for path in (tmp_path / "shards").iterdir()].count(index.SUFFIX) == 1


def test_other_settings_of_the_parser_have_an_index_of_their_own(tmp_path, make, reads, monkeypatch):
    files = tars(tmp_path / "shards", records(COUNT))
    make(files)
    make(files, sample=3, seed=5, weight=2)
    assert len(reads) == 2
    make(files, expect={"id": "sample-.*"})
    assert len(reads) == 4
    make(files)
    assert len(reads) == 4
    monkeypatch.setattr("mmgpt.datasets.instruction.code_digest", lambda parser: "changed code")
    make(files)
    assert len(reads) == 6


def test_the_index_moves_with_its_shards(tmp_path, make, reads):
    files = tars(tmp_path / "shards", records(COUNT))
    expected = make(files)[1]
    shutil.move(tmp_path / "shards", tmp_path / "moved")
    moved = make(dict(ann_file="*.tar", data_root=str(tmp_path / "moved")))
    assert len(reads) == 2
    assert moved.get_data_info(1)["file"] == str(tmp_path / "moved" / "0.tar")
    assert torch.equal(moved[1]["pixels"], expected["pixels"])


def test_the_index_of_a_folder_that_is_read_only_is_in_the_cache(tmp_path, make, reads, cache, monkeypatch):
    atomic_write = index.atomic_write

    def write(path):
        if path.parent.name == "shards":
            raise PermissionError(path)
        return atomic_write(path)

    monkeypatch.setattr(index, "atomic_write", write)
    files = tars(tmp_path / "shards", records(COUNT))
    make(files)
    make(files)
    assert reads == ["0.tar", "1.tar"]
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["0.tar", "1.tar"]
    (path,) = cache.iterdir()
    assert path.suffix == index.SUFFIX


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[: len(content) // 16 * 8],
        lambda content: content[:4],
        lambda content: content[:20],
        lambda content: b"\xff" * 64,
        lambda content: b"\xff" * 7 + b"\x7f" + b"another format",
        lambda content: b"\2\0\0\0\0\0\0\0[]" + content,
        lambda content: b"\2\0\0\0\0\0\0\0{}" + content,
    ],
)
def test_a_file_that_is_no_index_is_replaced(tmp_path, make, reads, damage):
    files = tars(tmp_path / "shards", records(COUNT))
    make(files)
    (path,) = (tmp_path / "shards").glob(f"*{index.SUFFIX}")
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert len(make(files)) == COUNT
    assert len(reads) == 4
    assert path.read_bytes() == content


def test_an_index_that_may_not_be_read_and_no_home_directory(tmp_path, make, reads, monkeypatch):
    def refuse(*arguments):
        raise error

    error = PermissionError("not yours")
    files = tars(tmp_path / "shards", records(COUNT))
    make(files)
    with monkeypatch.context() as patch:
        patch.setattr(index, "open", refuse, raising=False)
        assert index.find_index(list((tmp_path / "shards").glob(f"*{index.SUFFIX}")), None) is None
    error = RuntimeError("Could not determine home directory.")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", refuse)
    assert len(index.index_paths(tmp_path, "name")) == 2
    make(files)
    assert len(reads) == 2


def test_refused_records_are_counted_from_the_index_too(tmp_path, make, reads, logged):
    rows = records(COUNT)
    rows[8]["trns"] = rows[8].pop("turns")
    files = tars(tmp_path, rows)
    for _ in range(2):
        dataset = make(files, on_error="skip")
        assert dataset.dropped.totals["refused"] == 1
        assert len(dataset) == COUNT - 1
        assert dataset.get_data_info(8)["record"] == 2
        assert any("1.tar', record 1, id 'sample-8': unknown key 'trns'" in line for line in logged)
        logged.clear()
    assert len(reads) == 2
    with pytest.raises(SampleError, match="1.tar', record 1, id 'sample-8': unknown key 'trns'"):
        make(files)


def test_brackets_in_the_names_of_files_and_folders(tmp_path, make):
    folder = tmp_path / "photos[1]"
    tars(folder, records(COUNT))
    (folder / "0.tar").rename(folder / "0[a].tar")
    (folder / "0a.tar").write_bytes(b"another file")
    dataset = make(dict(ann_file="0[a].tar", data_root=str(folder)))
    assert dataset.files == [str(folder / "0[a].tar")]
    dataset = make(dict(ann_file="[1-9].tar", data_root=str(folder)))
    assert dataset.files == [str(folder / "1.tar")]
    assert dataset.image_folder == str(folder)
    check_files(dict(train_dataloader=dict(dataset=dict(ann_file="[1-9].tar", data_root=str(folder)))))


# ---- errors


def test_files_that_are_not_there_and_settings_that_are_not_read(tmp_path, make):
    with pytest.raises(FileNotFoundError, match=r"no annotation file '.*no/\*.tar'"):
        make(dict(ann_file=str(tmp_path / "no" / "*.tar")))
    files = tars(tmp_path, records(4))
    with pytest.raises(
        ValueError, match="has its images inside: data_prefix={'img': 'images'} is not read with shards"
    ):
        make(files, data_prefix=dict(img="images"))
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(
        ValueError, match=r"splits holds several splits: name the folder of one of them \(train, test\)"
    ):
        make(dict(ann_file=str(tmp_path / "splits")))


def test_images_under_another_key_are_an_error(tmp_path, make):
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    content = json.dumps({"messages": said, "photo": "x"}).encode()
    write_members(tmp_path / "0.tar", [("a.json", content), ("a.png", png("a"))])
    dataset = make(dict(ann_file=str(tmp_path / "0.tar")), parser="messages", lazy_init=True)
    (record,) = dataset.records()
    assert record["image"].startswith("0.tar::a.png@")
    record["photo"] = record.pop("image")
    with pytest.raises(
        SampleError, match="column 'photo' holds images that are not read: name it one of image, images"
    ):
        dataset._parse(0, record, [])


def test_an_error_about_an_image_names_its_place(tmp_path, make):
    rows = records(COUNT)
    write_members(tmp_path / "0.tar", [("a.json", json.dumps(rows[1]).encode()), ("a.png", b"no image")])
    dataset = make(dict(ann_file=str(tmp_path / "0.tar")))
    with pytest.raises(
        SampleError, match=r"0.tar', record 0, id 'sample-1', image '.*0.tar::a.png@\d+\+8': cannot be read"
    ):
        dataset[0]
    (tmp_path / "0.tar").unlink()
    with pytest.raises(MissingImageError, match=r"0.tar::a.png@\d+\+8': no such file"):
        dataset[0]


def test_broken_records_of_tar_files_are_passed_over(tmp_path, make):
    rows = records(4)
    good = [("b.json", json.dumps(rows[1] | {"id": "b"}).encode()), ("b.png", png("b"))]
    broken = [("a.json", b"{"), *good, ("c.json", b"\xff"), ("a.txt", b"again"), ("d.mp4", b"")]
    write_tar(tmp_path / "0.tar", rows)
    write_members(tmp_path / "1.tar", broken)
    dataset = make(dict(ann_file=str(tmp_path / "*.tar")), on_error="skip")
    assert dataset.dropped.totals["refused"] == 4
    assert [sample["meta"]["id"] for sample in dataset] == [row["id"] for row in rows] + ["b"]
    assert dataset.get_data_info(4)["record"] == 1
    with pytest.raises(SampleError, match="1.tar', record 0, id 'a': its .json is not valid JSON"):
        make(dict(ann_file=str(tmp_path / "*.tar")))


def test_missing_images_beside_shards_are_listed_at_once(tmp_path, make, steps, logged):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (requirements/parquet.txt)")
    from pyarrow.parquet import write_table

    turns = [[{"question": "a", "answer": "red"}]] * 24
    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    images = pyarrow.array([[{"path": f"{i}.png"}] for i in range(24)], pyarrow.list_(image))
    write_table(pyarrow.table({"turns": turns, "images": images}), tmp_path / "0.parquet")
    files = dict(ann_file=str(tmp_path / "*.parquet"))
    with pytest.raises(MissingImageError, match="24 of 24 image files that its shards name are missing") as raised:
        make(files)
    assert [line.strip() for line in str(raised.value).splitlines()[-2:]] == [f"{tmp_path}/5.png", "and 4 more"]
    with pytest.raises(MissingImageError):
        make(files, on_error="skip")
    assert len(make(files, pipeline=steps(None))) == 24
    (tmp_path / "3.png").write_bytes(png("3"))
    with pytest.raises(MissingImageError, match="23 of 24"):
        make(files)
    logged.clear()
    assert make(files, on_error="skip")[0]["meta"]["id"] == "3"
    assert any("23 of 24 image files" in line for line in logged)


# ---- the Hub's cache


def test_a_dataset_on_the_hub_is_read_from_its_cache(tmp_path, make, monkeypatch):
    use_hub(monkeypatch, tmp_path / "hub")
    address = "hf://datasets/owner/photos/data/train-*.tar"
    missing = r"does not hold owner/photos: run `hf download owner/photos --repo-type dataset` with a network"
    with pytest.raises(FileNotFoundError, match=missing):
        make(dict(ann_file=address))
    config = dict(train_dataloader=dict(dataset=dict(ann_file=address, data_root="data")))
    with pytest.raises(FileNotFoundError, match=missing):
        check_files(config)
    assert fingerprints(config) == {}
    repository = tmp_path / "hub" / "datasets--owner--photos"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    folder = repository / "snapshots" / COMMIT
    write_tar(folder / "data" / "train-0.tar", records(COUNT))
    check_files(config)
    assert len(fingerprints(config)) == 1
    for name in (address, address.replace("photos", f"photos@{COMMIT}")):
        dataset = make(dict(ann_file=name, data_root="data"))
        assert dataset.files == [str(folder / "data" / "train-0.tar")]
        assert len(dataset) == COUNT
        assert dataset[2]["pixels"].shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match="must end in the names of shards; in the cache are data/train-0.tar"):
        make(dict(ann_file="hf://datasets/owner/photos"))
    with pytest.raises(ValueError, match="an address on the Hub is hf://datasets/OWNER/NAME/FILES or"):
        make(dict(ann_file="hf://datasets/photos"))
    with pytest.raises(FileNotFoundError, match="owner/photos@v2: run `hf download .* --revision v2`"):
        make(dict(ann_file=address.replace("photos/", "photos@v2/")))


# ---- what looks at datasets


def test_the_check_finds_what_is_wrong_in_shards(tmp_path, steps):
    rows = records(COUNT)
    rows[8]["turns"] = []
    files = tars(tmp_path, rows)
    members = [("a.json", json.dumps(records(1, first=41)[0]).encode()), ("a.png", b""), ("b.json", b'{"turns": []}')]
    write_members(tmp_path / "2.tar", members)
    dataset = dict(type="InstructionDataset", parser="conversation", pipeline=steps(16), **files)
    checked = list(read_datasets(dict(train_dataloader=dict(dataset=dataset))))
    images = images_of(checked)
    figures, findings = check_datasets(checked, images)
    assert figures[0]["records"] == COUNT + 2
    assert figures[0]["image_sizes"] == {"smallest": (40, 32), "largest": (40, 32)}
    assert [(finding.kind, Path(finding.file).name, finding.record, finding.id) for finding in findings] == [
        ("broken_record", "1.tar", 1, "sample-8"),
        ("broken_record", "2.tar", 1, "b"),
        ("unreadable_image", "2.tar", 0, "sample-41"),
    ]
    assert findings[2].value.endswith("+0: an empty file")
    write_members(tmp_path / "2.tar", [("a.json", b"{"), ("b.json", b"[]")])
    (checked,) = read_datasets(dict(train_dataloader=dict(dataset=dataset)))
    broken = [(finding.kind, Path(finding.file).name, finding.id) for finding in checked.findings]
    assert broken == [("broken_record", f"{i}.tar", id) for i, id in ((1, "sample-8"), (2, "a"), (2, "b"))]
    assert checked.findings[1].value.startswith("its .json is not valid JSON")
    (tmp_path / "2.tar").write_bytes(b"no tar file" * 100)
    (checked,) = read_datasets(dict(train_dataloader=dict(dataset=dataset)))
    assert [finding.kind for finding in checked.findings] == ["broken_record", "annotation_file"]
    assert "2.tar'" in checked.findings[1].value


def test_views_show_the_images_of_shards(make, shards):
    dataset = make(shards)
    batch = collate_conversations([dataset[0], dataset[10]])
    ((text,), (sample,)) = (row.samples for row in read_rows(batch, [dataset]))
    assert text.shown_images == []
    assert [image.size for image in sample.shown_images] == [(40, 32), (40, 32)]
    assert sample.file in dataset.files


def test_the_control_gives_images_of_another_sample(make, shards):
    dataset = make(shards)
    control = ImageControl(dataset, "other")
    shown = [(data["meta"]["images"], data["pixels"]) for data in control]
    pixels = {tuple(dataset.get_data_info(i)["images"]): dataset[i]["pixels"] for i in range(len(dataset))}
    for i, (images, prepared) in enumerate(shown):
        own = tuple(dataset.get_data_info(i)["images"])
        assert (tuple(images) == own) == (not own)
        if own:
            assert torch.equal(prepared, pixels[tuple(images)])


def test_images_of_rows_are_found(make, shards):
    info = make(shards).get_data_info(1)
    row = dict(dataset="conversation", images=info["images"])
    images = RowImages(dict(parser="conversation", **shards))
    assert [image.size for image in images.load(row)] == [(40, 32)]
    assert images.errors == []


def test_cached_features_belong_to_an_image_as_long_as_its_shard_stays(tmp_path, make):
    dataset = make(tars(tmp_path, records(COUNT)))
    paths = [f"{tmp_path}/{image}" for i in range(7) for image in dataset.get_data_info(i)["images"]]
    keys = [image_key(path) for path in paths]
    assert len(set(keys)) == 7
    samples = [dataset.get_data_info(i) for i in range(7)]
    assert [image_key(path) for sample in samples for path in read_images(dataset, sample)] == keys
    (tmp_path / "link").symlink_to(tmp_path)
    assert [image_key(path.replace(str(tmp_path), f"{tmp_path}/link")) for path in paths] == keys
    os.utime(tmp_path / "0.tar", ns=(1, 1))
    assert not set(keys) & {image_key(path) for path in paths}


def test_patterns_are_looked_for_before_training(tmp_path):
    config = dict(train_dataloader=dict(dataset=tars(tmp_path, records(COUNT))))
    check_files(config)
    assert data_files(config) == [str(tmp_path / "0.tar"), str(tmp_path / "1.tar")]
    before = fingerprints(config)
    assert list(before) == ["train_dataloader.dataset.ann_file"]
    assert fingerprints(config) == before
    write_tar(tmp_path / "1.tar", records(COUNT)[8:])
    assert fingerprints(config) != before
    config["train_dataloader"]["dataset"]["ann_file"] = str(tmp_path / "*.parquet")
    with pytest.raises(FileNotFoundError, match=r"\*.parquet  \(train_dataloader.dataset.ann_file\)"):
        check_files(config)


# ---- two processes


def one_of_two(rank, folder):
    os.environ["TMPDIR"] = f"{folder}/temporary"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    dataset = InstructionDataset("conversation", sample=9, ann_file=f"{folder}/shards/*.tar", pipeline=[len])
    ids = [dataset.get_data_info(i)["id"] for i in range(len(dataset))]
    origin = [dataset.get_data_info(8)[key] for key in ("file", "record")]
    Path(folder, f"{rank}.json").write_text(json.dumps([ids, origin, dataset.data_bytes.flags.writeable]))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_map_the_same_index(tmp_path, make):
    files = tars(tmp_path / "shards", records(COUNT))
    (tmp_path / "temporary").mkdir()
    multiprocessing.spawn(one_of_two, args=(str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    alone = make(files, sample=9)
    assert first == second
    assert first[0] == [alone.get_data_info(i)["id"] for i in range(9)]
    assert first[1] == [alone.get_data_info(8)[key] for key in ("file", "record")]
    assert len([path for path in (tmp_path / "shards").iterdir() if path.suffix == index.SUFFIX]) == 1
