"""tools/analysis_tools/check_dataset.py as users run it."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.corrupt_data import FOUND, write_corrupt_images

TOOL = Path(__file__).parents[2] / "tools" / "analysis_tools" / "check_dataset.py"
DATASETS = Path(__file__).parents[2] / "configs" / "_base_" / "datasets"
CONFIG = """
_base_ = {base!r}
language_model = {tokenizer!r}
data_root = {root!r}
prepare_images = dict(size=16)
max_length = 400
photos = dict(
    type="InstructionDataset",
    name="photos",
    parser="llava",
    data_root="${{data_root}}",
    ann_file="train.json",
    data_prefix=dict(img="images"),
    pipeline=["${{image_steps}}", "${{answer_steps}}"],
)
train_dataloader = dict(batch_size=1, dataset=dict(type="JointDataset", visual=["${{photos}}"]))
model = dict(type="NothingIsBuiltFromIt", path="weights/that/are/not/there")
"""


def record(name, answer="Red."):
    said = [{"from": "human", "value": "<image>\nwhat colour?"}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": f"{name}.png", "conversations": said}


@pytest.fixture
def world(tmp_path, tiny_llama):
    """A function that writes a config and its data: these records, and an image for each of them."""

    def write(records):
        (tmp_path / "images").mkdir()
        for each in records:
            Image.new("RGB", (20, 30), "red").save(tmp_path / "images" / each["image"])
        (tmp_path / "train.json").write_text(json.dumps(records))
        text = CONFIG.format(base=str(DATASETS / "pipelines.py"), tokenizer=tiny_llama, root=str(tmp_path))
        (tmp_path / "photos.py").write_text(text)
        return tmp_path / "photos.py"

    return write


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs the tool within this process, in an empty folder, and returns its exit status."""
    monkeypatch.chdir(tmp_path)

    def in_process(*arguments):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            return end.code
        return 0

    return in_process


@pytest.mark.parametrize("workers", [1, 2])
def test_clean_datasets_exit_with_status_0(tmp_path, world, run, capsys, workers):
    assert run(world([record("a"), record("b")]), "--workers", workers) == 0
    shown = capsys.readouterr()
    assert "photos" in shown.out
    assert "20x30" in shown.out
    assert "0 errors, 0 warnings" in shown.out
    assert "annotation files" in shown.err
    assert "samples and images: 100%" in shown.err
    report = json.loads((tmp_path / "work_dirs" / "photos" / "check_dataset.json").read_text())
    [figures] = report["datasets"]
    assert report["findings"] == []
    assert figures["samples"] == figures["images"] == 2
    assert figures["image_sizes"] == {"smallest": [20, 30], "largest": [20, 30]}


@pytest.mark.parametrize(
    "metric, problem",
    [
        ({"type": "BenchmarkScores", "rule": "vqa"}, "VQA accuracy needs 10 annotators' answers"),
        ({"type": "BenchmarkScores", "rule": "exact", "by": ["kind"]}, "no sample has a tag 'kind'"),
        ({"type": "BenchmarkScores", "rule": "best"}, "unknown rule 'best'"),
        ({"type": "BenchmarkScores", "rule": "exact"}, "ids of several predictions: ('photos', 'a')"),
        ({"type": "AnswerAccuracy"}, ""),
    ],
)
def test_metrics_that_could_not_score_the_answers(world, run, capsys, metric, problem):
    names = ["a", "a"] if problem.startswith("ids") else ["a", "b"]
    config = world([record(name) for name in names])
    asked = 'dict(photos, pipeline=["${image_steps}", "${question_steps}"])'
    config.write_text(
        config.read_text().replace("train_dataloader = ", "unused = ")
        + f"""
test_dataloader = dict(batch_size=1, dataset={asked})
test_evaluator = {metric!r}
"""
    )
    assert run(config, "--workers", 1) == bool(problem)
    out = capsys.readouterr().out
    assert problem in out
    assert ("error: answers that the metrics could not score in test dataset 'photos': 1" in out) is bool(problem)


def test_errors_exit_with_status_1(tmp_path, world, run, capsys):
    records = [record(f"photo {i}") for i in range(8)] + [record("naïve", answer="")]
    config = world(records)
    for i in range(7):
        (tmp_path / "images" / f"photo {i}.png").unlink()
    assert run(config, "--out", tmp_path / "new" / "found.json", "--workers", 1) == 1
    shown = capsys.readouterr().out
    assert "error: missing images in train dataset 'photos': 7\n" in shown
    assert "\n    and 2 more\n" in shown
    path = tmp_path / "images" / "photo 4.png"
    assert f"    {tmp_path}/train.json, record 4, id 'photo 4': {path}: no such file\n" in shown
    assert "record 5" not in shown
    assert "record 8, id 'naïve': its answer is empty\n" in shown
    assert f"\n8 errors, 0 warnings; all of them in {tmp_path}/new/found.json\n" in shown
    found = json.loads((tmp_path / "new" / "found.json").read_text(encoding="utf-8"))["findings"]
    assert [each["record"] for each in found] == [8, *range(7)]
    assert found[0]["id"] == "naïve"
    assert found[1] == {
        "kind": "missing_image",
        "split": "train",
        "dataset": "photos",
        "file": f"{tmp_path}/train.json",
        "record": 0,
        "id": "photo 0",
        "value": f"{tmp_path}/images/photo 0.png: no such file",
    }


def test_warnings_alone_exit_with_status_0(world, run, capsys):
    config = world([record("a"), record("b", answer="red " * 300), record("a")])
    assert run(config, "--cfg-options", "max_length=200", "--workers", 1) == 0
    shown = capsys.readouterr().out
    assert "warning: cut answers in train dataset 'photos': 1\n" in shown
    assert "warning: duplicates in train dataset 'photos': 1\n" in shown
    assert "0 errors, 2 warnings" in shown
    assert "33.3%" in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["data_root=elsewhere"], ["2 files or folders", "elsewhere/train.json", "data_root=..."]),
        (["photos.parser=lava"], ["unknown parser 'lava'", "choose among"]),
        (["photos.anfile=x"], ["arguments in the config do not fit", "did you mean 'ann_file'"]),
        (["photos.type=X"], ["'X'", "is not a registered dataset", "InstructionDataset"]),
        (["max_lenght=3"], ["did you mean 'max_length'"]),
        (["train_dataloader=None"], ["names no dataset", "test_dataloader"]),
    ],
)
def test_mistakes_in_the_config(world, run, capsys, options, words):
    assert run(world([record("a")]), "--cfg-options", *options) == 1
    message = capsys.readouterr().err.partition("error: ")[2]
    for word in words:
        assert word in message


def test_mistakes_in_the_command(world, run, capsys):
    config = world([record("a")])
    assert run(config.with_name("photo.py")) == 1
    assert "did you mean 'photos.py'" in capsys.readouterr().err
    assert run(config, "--workers", 0) == 1
    assert "--workers 0: at least one process" in capsys.readouterr().err


CORRUPT = """
_base_ = {base!r}
language_model = {tokenizer!r}
data_root = {root!r}
prepare_images = dict(size=16)
_kept = dict(type="InstructionDataset", data_root="${{data_root}}", data_prefix=dict(img="images"))
_steps = dict(pipeline=["${{image_steps}}", "${{answer_steps}}"])
photos = dict(name="photos", parser="conversation", ann_file="photos.jsonl", **_kept, **_steps)
used = dict(name="used", parser="conversation", ann_file="used.jsonl", **_kept, **_steps)
unused = dict(name="unused", parser="coco_caption", ann_file="unused.json", **_kept, **_steps)
_parts = ["${{photos}}", "${{used}}", "${{unused}}"]
train_dataloader = dict(batch_size=1, dataset=dict(type="JointDataset", visual=_parts))
"""


def test_every_corrupt_file_is_found_and_named(tmp_path, tiny_llama, run, capsys):
    """Pictures and annotation files with something the matter, each of them once."""
    write_corrupt_images(tmp_path / "images")
    names = [*FOUND, "good.png"]
    lines = [json.dumps({"images": [name], "turns": [{"question": name, "answer": "Red."}]}) for name in names]
    (tmp_path / "photos.jsonl").write_text("\n".join(lines), encoding="utf-8-sig")
    (tmp_path / "used.jsonl").write_text(lines[-1] + '\n{"turns": [{"question": "a", "answer": NaN}]}')
    (tmp_path / "unused.json").write_text('[{"image": "good.png", "caption": "Red.", "score": NaN}]')
    text = CORRUPT.format(base=str(DATASETS / "pipelines.py"), tokenizer=tiny_llama, root=str(tmp_path))
    (tmp_path / "corrupt.py").write_text(text)
    assert run(tmp_path / "corrupt.py", "--workers", 1) == 1
    shown = capsys.readouterr().out
    assert "\n7 errors, 8 warnings; " in shown
    report = json.loads((tmp_path / "work_dirs" / "corrupt" / "check_dataset.json").read_text(encoding="utf-8"))
    found = [(each["kind"], each["file"], each["record"], each["value"]) for each in report["findings"]]
    file = f"{tmp_path}/photos.jsonl"
    expected = [("unusual_file", file, None, "begins with a byte order mark, which is skipped")]
    for number, (name, (kind, words)) in enumerate(FOUND.items()):
        [value] = [value for *place, value in found if place == [kind, file, number]]
        assert value.startswith(f"{tmp_path}/images/{name}: ")
        assert words in value
        expected.append((kind, file, number, value))
    nan = "not valid JSON: NaN in key"
    expected.append(("annotation_file", f"{tmp_path}/used.jsonl", 1, f"{nan} 'turns.0.answer'"))
    expected.append(("annotation_file", f"{tmp_path}/unused.json", 0, f"{nan} 'score'"))
    assert sorted(map(str, found)) == sorted(map(str, expected))


def test_one_split_is_checked_alone(tmp_path, world, run, capsys):
    """A config inherits its test data, which may be absent."""
    base = world([record("a")])
    base.write_text(base.read_text() + 'test_dataloader = dict(dataset=dict(photos, ann_file="absent.json"))\n')
    config = tmp_path / "own.py"
    config.write_text(f"_base_ = {str(base)!r}\n")
    assert run(config, "--split", "train") == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    assert run(config) != 0
    assert "absent.json" in capsys.readouterr().err
    assert run(config, "--split", "test") != 0
    assert "absent.json" in capsys.readouterr().err
