"""tools/dataset_converters/convert.py as users run it; for its layouts see test_convert_layouts.py."""

import json
import re
import shlex
import sys
import textwrap

import pytest

from mmgpt.cli import load_config, tool
from mmgpt.datasets.inspection.check import check_datasets, images_of, read_datasets
from tests.helpers.converting import CONVERTERS, ROOT, png_bytes, sample, samples, write
from tests.helpers.parsing import COCO_2014, DATA, parse

CONFIGS = ROOT / "configs" / "mmgpt"


@pytest.mark.parametrize(
    ("parser", "file", "options", "questions"),
    [
        ("llava", "llava_conversation_58k.json", {}, None),
        ("aokvqa", "aokvqa.json", {}, None),
        ("baize", "quora_chat_data.json", {}, None),
        ("conversation", "own_images.jsonl", {}, None),
        ("messages", "chat_messages.jsonl", {}, None),
        ("messages", "chat_page.json", {}, None),
        ("the_cauldron", "the_cauldron.jsonl", {}, None),
        ("ocr_vqa", "ocr_vqa_dataset.json", {"split": "train"}, None),
        ("vqa", "okvqa_annotations.json", {"image": COCO_2014}, "okvqa_questions.json"),
    ],
)
def test_files_of_a_parser_are_converted(convert, parser, file, options, questions):
    expected = [each for each in parse({"type": parser, **options}, file, questions) if each is not None]
    arguments = ["--options", *(f"{key}={value}" for key, value in options.items())] if options else []
    arguments += ["--questions", DATA / questions] if questions else []
    actual = convert("parser", parser, DATA / file, *arguments)
    assert [each["turns"] for each in actual] == [each["turns"] for each in expected]
    assert [each["images"] for each in actual] == [each["images"] for each in expected]
    assert [each.get("system") for each in actual] == [each.get("system") for each in expected]


def test_a_wrong_record_of_a_parser_is_named(tmp_path, convert):
    path = write(tmp_path / "a.json", '[{"id": "x", "image": "1.jpg"}]')
    with pytest.raises(ValueError, match="a.json', record 0, id 'x': no key 'conversations'"):
        convert("parser", "llava", path)
    with pytest.raises(ValueError, match="unknown parser 'lava': choose among"):
        convert("parser", "lava", path)


def test_held_out_samples_share_no_image_with_the_others(tmp_path, convert):
    rows = [f"{i // 3}.jpg,question {i},a" for i in range(60)] + ["5.jpg;6.jpg,both?,a", ",text?,a", ",text?,a"]
    path = write(tmp_path / "a.csv", "\n".join(["image,question,answer", *rows]))
    train = convert("csv", path, "--val", 0.1)
    val = samples("out/val.jsonl")
    assert 6 <= len(val) <= 12
    assert len(train) + len(val) == len(rows)
    shown = [{image for each in part for image in each["images"]} for part in (train, val)]
    assert shown[0] | shown[1] == {f"{i}.jpg" for i in range(20)}
    assert not shown[0] & shown[1]
    assert {json.dumps(part).count("text?") for part in (train, val)} == {0, 2}
    assert convert("csv", path, "--val", 0.1, out="again.jsonl") == train
    assert samples("again_val.jsonl") == val
    assert convert("csv", path, "--val", 0.1, "--seed", 1, out="seed.jsonl") != train


def test_a_separate_test_file_is_converted_beside(tmp_path, convert, capsys):
    train = write(tmp_path / "a/train.csv", "image,answer\n1.jpg,One.\n")
    test = write(tmp_path / "b/test.csv", "image,answer\n2.jpg,Two.\n")
    assert convert("csv", train, "--test", test) == [sample("", "One.", "1.jpg")]
    assert samples("out/test.jsonl") == [sample("", "Two.", "../b/2.jpg")]
    out = capsys.readouterr().out
    assert 'ann_file="test.jsonl"' in out
    assert "warning" not in out
    convert("csv", train, "--test", test, "--images", tmp_path, out="own.jsonl")
    assert samples("own_test.jsonl") == [sample("", "Two.", "2.jpg")]
    page = DATA / "chat_page.json"
    assert convert("parser", "messages", page, "--test", page, out="page.jsonl") == samples("page_test.jsonl")
    assert f"warning: 1 of 1 samples of {page} are training data, too" in capsys.readouterr().out


def test_a_test_file_needs_a_format_of_one_file(tmp_path, convert, capsys):
    with pytest.raises(ValueError, match="--test reads one file"):
        convert("parser", "vqa", DATA / "a.json", "--questions", DATA / "q.json", "--test", DATA / "b.json")
    with pytest.raises(SystemExit):
        convert("csv", "a.csv", "--test", "b.csv", "--val", "0.2")
    assert "argument --val: not allowed with argument --test" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="there is no 'b.csv'"):
        convert("csv", write(tmp_path / "a.csv", "image,answer\n1.jpg,One.\n"), "--test", "b.csv")


def test_samples_that_share_one_image_cannot_be_split(tmp_path, convert):
    path = write(tmp_path / "a.csv", "image,question,answer\n./1.jpg,a,b\n1.jpg,b,c\n")
    with pytest.raises(ValueError, match="--val 0.5: nothing can be held out of 2 samples"):
        convert("csv", path, "--val", 0.5)


def test_a_file_is_replaced_only_with_force(tmp_path, convert):
    write(tmp_path / "out" / "val.jsonl", "mine")
    path = write(tmp_path / "a.csv", "image,answer\n1.jpg,a\n2.jpg,b\n")
    with pytest.raises(ValueError, match="out/val.jsonl exists already: --force replaces it"):
        convert("csv", path, "--val", 0.5)
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["val.jsonl"]
    assert len(convert("csv", path, "--val", 0.5, "--force")) == 1
    assert len(samples("out/val.jsonl")) == 1
    wrong = write(tmp_path / "b.csv", "image,answer\n1.jpg,a\n2.jpg\n")
    before = {each: each.read_text() for each in (tmp_path / "out").iterdir()}
    with pytest.raises(ValueError, match="row 3"):
        convert("csv", wrong, "--force")
    assert {each: each.read_text() for each in (tmp_path / "out").iterdir()} == before


def test_errors_are_one_line(tmp_path, convert, monkeypatch, capsys):
    import convert as module

    monkeypatch.setattr(sys, "argv", [str(CONVERTERS / "convert.py"), "csv", "gone.csv", "--out", "a.jsonl"])
    with pytest.raises(SystemExit):
        tool.run(module.main)
    assert capsys.readouterr().err == "error: there is no 'gone.csv'\n"
    write(tmp_path / "a.csv", "image,answer\n1.jpg\n")
    monkeypatch.setattr(sys, "argv", [str(CONVERTERS / "convert.py"), "csv", "a.csv", "--out", "a.jsonl"])
    with pytest.raises(SystemExit):
        tool.run(module.main)
    assert capsys.readouterr().err.endswith("error: a.csv, row 2: 1 cells, but 2 headings: image, answer\n")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--columns", "picture=a"], "unknown role 'picture' of a column; choose one of image, question"),
        (["--columns", "a"], "'a' is not KEY=VALUE"),
        (["--val", "1"], "1 is not between 0 and 1"),
    ],
)
def test_wrong_options_are_named(convert, capsys, option, words):
    with pytest.raises(SystemExit):
        convert("csv", "a.csv", *option)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("visual", [True, False])
@pytest.mark.parametrize("val", [True, False])
def test_the_printed_config_has_the_data_and_passes_the_check(tmp_path, convert, capsys, tiny_llama, visual, val):
    """The checker reads all converted samples and has no findings."""
    for i in range(8):
        path = tmp_path / "pictures" / f"{i}.png"
        write(path, "").write_bytes(png_bytes((30 * i, 0, 0)))
    rows = [f"pictures/{i}.png,,caption {i}" if visual else f",question {i},answer {i}" for i in range(8)]
    table = write(tmp_path / "a.csv", "\n".join(["image,question,answer", *rows]))
    arguments = ["--val", 0.25] if val else []
    train = convert("csv", table, *arguments, out="data/our photos/train.jsonl")
    shown = capsys.readouterr().out
    assert (
        f"data/our photos/train.jsonl: {len(train)} samples, {len(train)} turns, {len(train) * visual} images\n"
        in shown
    )
    assert "check_dataset.py configs/mmgpt/my_our_photos.py\n" in shown
    text = shown[shown.index("_base_") : shown.index("\nNext: ")].replace("./lora", f"{CONFIGS}/lora")
    options = dict(language_model=tiny_llama, max_length=1000)
    options["prepare_images.size"] = 16
    cfg = load_config(write(tmp_path / "my_our_photos.py", text), options)
    parts = list(read_datasets(cfg))
    figures, findings = check_datasets(parts, images_of(parts))
    assert findings == []
    assert [each["split"] for each in figures] == ["train", "test"][: 1 + val]
    assert sum(each["samples"] for each in figures) == 8
    assert {each["source"] for each in figures} == {"visual" if visual else "language"}
    assert cfg.warmup_iters == cfg.param_scheduler[0].end == 16
    assert bool(cfg.test_dataloader) == val


def test_the_worked_example_of_the_guide(tmp_path, convert, capsys):
    """Its command, and its config: what the command prints, on another base and with another schedule."""
    guide = (ROOT / "docs" / "data.md").read_text()
    text = textwrap.dedent(re.search(r"```python\n( +_base_ = .*?)```", guide, re.DOTALL)[1])
    table = re.search(r"```csv\n(.*?)\n", guide)[1] + "\n"
    for i in range(20):
        write(tmp_path / f"data/tiny/images/train/{i}.png", "").write_bytes(png_bytes((12 * i, 0, 0)))
        table += f"train/{i}.png,What is {i}?,red\n"
    write(tmp_path / "data/photos/table.csv", table)
    [command] = re.findall(r"python tools/dataset_converters/convert.py (csv .*)", guide)
    *arguments, option, out, val, share = shlex.split(command)
    assert option == "--out"
    convert(*arguments, val, share, out=out)
    printed = capsys.readouterr().out
    differing = {line for line in text.splitlines() if f"\n{line}\n" not in printed}
    changed = ("_base_", "train_dataloader", "max_epochs", "warmup_iters")
    assert len(differing) == len(changed)
    assert all(line.startswith(changed) for line in differing)
    config = write(tmp_path / "my_photos.py", text.replace('"./tiny', f'"{CONFIGS}/tiny'))
    cfg = load_config(config, dict(language_model=str(ROOT / "checkpoints/tiny/language")))
    parts = list(read_datasets(cfg))
    figures, findings = check_datasets(parts, images_of(parts))
    assert findings == []
    assert [each["samples"] for each in figures] == [16, 4]
    # A twentieth of all batches.
    assert cfg.warmup_iters == cfg.max_epochs * 16 // cfg.train_dataloader.batch_size // 20
