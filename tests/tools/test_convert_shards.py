"""tools/dataset_converters/convert.py writing shards: the batches are those of the same data in JSON lines."""

import json

import pytest
import torch

from mmgpt.datasets import InstructionDataset, collate_conversations
from tests.helpers.converting import write
from tests.helpers.shards import png, records, write_lines, write_tar

COUNT = 40
SUFFIXES = ["parquet", "tar"]
STEPS = [dict(type="LoadImages"), dict(type="PrepareImages", size=16, mean=[0.5] * 3, std=[0.5] * 3)]


@pytest.fixture
def run(tmp_path, monkeypatch, convert):
    """A function that runs the tool without reading its output back."""

    def in_process(*arguments):
        import convert as command

        command.main(list(map(str, arguments)))

    return in_process


@pytest.fixture
def steps(tiny_llama):
    """Pipeline of a training dataset."""
    tokens = dict(type="TokenizeSegments", tokenizer=tiny_llama, max_length=400)
    texts = [dict(type="PickAnswer"), dict(type="AskQuestion", questions=["what is it", "what"])]
    return [*STEPS, *texts, dict(type="FormatPrompt", template="short"), tokens, dict(type="PackInputs")]


def pyarrow_for(suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (requirements/parquet.txt)")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_batches_of_shards_are_those_of_json_lines(tmp_path, run, steps, monkeypatch, suffix):
    pyarrow_for(suffix)
    rows = records(COUNT)
    rows[0]["turns"][0] = {"question": "", "answers": ["red", "a red circle"], "choices": ["a", "b"], "context": "one"}
    rows[1]["system"] = "You are a circle. <image> é"
    files = write_lines(tmp_path / "lines", rows)
    source = ["parser", "conversation", files["ann_file"], "--images", files["data_prefix"]["img"]]
    run(*source, "--out", tmp_path / f"out/train.{suffix}", "--val", 0.2)
    run(*source, "--out", tmp_path / "json/train.jsonl", "--val", 0.2)
    for split, count in (("train", 32), ("val", 8)):
        shards = InstructionDataset("conversation", ann_file=f"{tmp_path}/out/{split}-*.{suffix}", pipeline=steps)
        names = dict(ann_file=f"{tmp_path}/json/{split}.jsonl", data_prefix=files["data_prefix"])
        lines = InstructionDataset("conversation", pipeline=steps, **names)
        assert len(shards) == len(lines) == count
        for epoch in (0, 1):
            indices = range(epoch * count, (epoch + 1) * count)
            actual, expected = (collate_conversations([data[i] for i in indices]) for data in (shards, lines))
            assert torch.equal(actual["pixels"], expected["pixels"])
            assert torch.equal(actual["input_ids"], expected["input_ids"])
            assert torch.equal(actual["labels"], expected["labels"])
            assert [meta["id"] for meta in actual["metas"]] == [meta["id"] for meta in expected["metas"]]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_shards_end_at_their_size_and_replace_others(tmp_path, run, monkeypatch, capsys, suffix):
    pyarrow_for(suffix)
    monkeypatch.setattr("layouts.shards.ROW_GROUP", 20000)
    files = write_lines(tmp_path / "lines", records(COUNT))
    source = ["parser", "conversation", files["ann_file"], "--images", files["data_prefix"]["img"]]
    out = ["--out", f"out/train.{suffix}"]
    import convert

    with monkeypatch.context() as patch:
        write_shards = convert.write_shards
        patch.setattr(convert, "write_shards", lambda files, folder, size: write_shards(files, folder, size // 20))
        run(*source, *out, "--shard-size", 1)
    # 40 images of 4 kB, in shards of at least 50 kB
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"train-0000{i}.{suffix}" for i in range(3)]
    assert f'ann_file="train-{"[0-9]" * 5}.{suffix}"' in capsys.readouterr().out
    with pytest.raises(ValueError, match=f"train-00000.{suffix} exists already: --force replaces it"):
        run(*source, *out)
    run(*source, *out, "--force")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"train-00000.{suffix}"]
    assert "data_prefix=dict()," in capsys.readouterr().out


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_other_datasets_stay(tmp_path, run, suffix, capsys):
    pyarrow_for(suffix)
    files = write_lines(tmp_path / "lines", records(4))
    (tmp_path / "out").mkdir()
    stem = "train[1]"
    others = [f"{stem}-{name}.{suffix}" for name in ("2024-00000", "notes", "00000-of-00001", "000000")]
    others.append(f"train1-00000.{suffix}")
    for name in others:
        (tmp_path / "out" / name).write_text("other")
    source = ["parser", "conversation", files["ann_file"], "--images", files["data_prefix"]["img"]]
    run(*source, "--out", f"out/{stem}.{suffix}")
    (tmp_path / "out" / f"{stem}-00007.{suffix}").write_text("old")
    run(*source, "--out", f"out/{stem}.{suffix}", "--force")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {*others, f"{stem}-00000.{suffix}"}
    pattern = f"train[[]1]-{'[0-9]' * 5}.{suffix}"
    assert f'ann_file="{pattern}"' in capsys.readouterr().out
    assert len(InstructionDataset("conversation", ann_file=f"out/{pattern}", pipeline=[len])) == 4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_more_shards_than_their_names_count_are_refused(tmp_path, run, monkeypatch, suffix):
    pyarrow_for(suffix)
    monkeypatch.setattr("layouts.shards.DIGITS", 0)
    files = write_lines(tmp_path / "lines", records(4))
    from layouts.shards import write_shards

    with pytest.raises(ValueError, match=f"train.{suffix}: more than 1 shards: a larger --shard-size makes fewer"):
        write_shards({tmp_path / f"train.{suffix}": records(4)}, files["data_prefix"]["img"], 1)
    assert list(tmp_path.glob(f"*.{suffix}")) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_images_go_from_shards_to_shards(tmp_path, run, suffix):
    pyarrow_for(suffix)
    rows = [{"id": "x", "images": ["a.png"], "text": "A cup."}]
    path = tmp_path / "in" / "0.tar"
    write_tar(path, rows)
    run("webdataset", path, "--out", f"out/train.{suffix}")
    (sample,) = InstructionDataset("conversation", ann_file=f"out/train-*.{suffix}", pipeline=[dict(type="LoadImages")])
    assert sample["turns"][0]["answer"] == "A cup."
    assert sample["pil"][0].size == (40, 32)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == []
    with pytest.raises(ValueError, match=rf"--images new: the images are written into out/test-\[0-9\].*{suffix}"):
        run("webdataset", path, "--out", f"out/test.{suffix}", "--images", "new")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_image_leaves_no_shard(tmp_path, run, suffix):
    pyarrow_for(suffix)
    write(tmp_path / "a.csv", "image,answer\n1.png,One.\n2.png,Two.\n")
    (tmp_path / "1.png").write_bytes(png("1"))
    with pytest.raises(FileNotFoundError, match="2.png"):
        run("csv", "a.csv", "--out", f"out/train.{suffix}")
    assert list((tmp_path / "out").glob("*")) == []


def test_the_size_of_shards_is_one_of_shards(tmp_path, run):
    write(tmp_path / "a.json", json.dumps(records(1)))
    with pytest.raises(ValueError, match="--shard-size 3: at least 1, for an --out that ends in .parquet or .tar"):
        run("parser", "conversation", "a.json", "--out", "train.jsonl", "--shard-size", 3)
