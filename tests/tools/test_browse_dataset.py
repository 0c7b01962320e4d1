"""tools/analysis_tools/browse_dataset.py as users run it."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.html_pages import read_page

TOOL = Path(__file__).parents[2] / "tools" / "analysis_tools" / "browse_dataset.py"
DATASETS = Path(__file__).parents[2] / "configs" / "_base_" / "datasets"
CONFIG = """
_base_ = {base!r}
language_model = {tokenizer!r}
data_root = {root!r}
prepare_images = dict(size=16)
max_length = 200
prompt_template = "short"
seed = 0
photos, more = (
    dict(
        type="InstructionDataset",
        name=name,
        parser="conversation",
        data_root="${{data_root}}",
        ann_file=name + ".jsonl",
        data_prefix=dict(img="images"),
        pipeline=["${{image_steps}}", "${{answer_steps}}"],
    )
    for name in ("photos", "more")
)
words = dict(
    type="InstructionDataset",
    name="words",
    source="language",
    parser="conversation",
    data_root="${{data_root}}",
    ann_file="words.jsonl",
    pipeline=["${{answer_steps}}"],
)
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(type="JointDataset", seed="${{seed}}", visual=["${{photos}}", "${{more}}"], language=["${{words}}"]),
    sampler=dict(type="DefaultSampler", shuffle=False),
    batch_sampler=dict(type="JointBatchSampler", language_batch_size=1),
    collate_fn=dict(type="collate_conversations"),
)
test_dataloader = dict(
    batch_size=4,
    dataset="${{words}}",
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
randomness = dict(seed="${{seed}}")
model = dict(type="NothingIsBuiltFromIt", path="weights/that/are/not/there")
"""


def visual(name):
    return {"id": name, "images": ["red.png"], "turns": [{"question": "what colour?", "answer": "red"}]}


def language(name):
    return {"id": name, "turns": [{"question": "what is it?" * int(name[-1]), "answer": "one two"}]}


@pytest.fixture
def config(tmp_path, tiny_llama):
    """Eight photos (photo0 to photo7), two more (more0, more1), four texts (text0 to text3), and their config."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 30), "red").save(tmp_path / "images" / "red.png")
    for name, records in (
        ("photos", [visual(f"photo{i}") for i in range(8)]),
        ("more", [visual(f"more{i}") for i in range(2)]),
        ("words", [language(f"text{i}") for i in range(4)]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    text = CONFIG.format(base=str(DATASETS / "pipelines.py"), tokenizer=tiny_llama, root=str(tmp_path))
    (tmp_path / "mix.py").write_text(text)
    return tmp_path / "mix.py"


@pytest.fixture
def run(config, tmp_path, monkeypatch):
    """A function that runs the tool within this process, in an empty folder, and returns its exit status."""
    monkeypatch.chdir(tmp_path)

    def in_process(*arguments):
        monkeypatch.setattr(sys, "argv", [str(TOOL), str(config), *map(str, arguments)])
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            return end.code
        return 0

    return in_process


def ids(tmp_path, name):
    """The samples on a page: number of the batch -> ids."""
    page = read_page(tmp_path / "work_dirs" / "mix" / "browse" / f"{name}.html")
    sections = page.all(name="section")
    return {
        int(section.all(name="h2")[0].text.split()[1]): [element.text.split()[-1] for element in section.all("origin")]
        for section in sections
    }


def test_the_batches_of_one_process(tmp_path, run, capsys):
    assert run() == 0
    assert capsys.readouterr().out == "written: work_dirs/mix/browse/train-epoch0-rank0of1.html\n"
    assert ids(tmp_path, "train-epoch0-rank0of1") == {
        0: ["photo0", "photo1", "text0"],
        1: ["photo2", "photo3", "text1"],
        2: ["photo4", "photo5", "text2"],
    }


def test_the_batches_of_rank_1_of_2(tmp_path, run):
    assert run("--rank", 1, "--world-size", 2, "--batches", 9) == 0
    assert ids(tmp_path, "train-epoch0-rank1of2") == {
        0: ["photo1", "photo3", "text1"],
        1: ["photo5", "photo7", "text3"],
        2: ["more1", "text1"],
    }


def test_epochs_differ_in_their_order(tmp_path, run):
    shuffled = ["--batches", 9, "--cfg-options", "train_dataloader.sampler.shuffle=True"]
    assert run(*shuffled) == run("--epoch", 1, *shuffled) == 0
    orders = [sum(ids(tmp_path, f"train-epoch{epoch}-rank0of1").values(), []) for epoch in (0, 1)]
    assert orders[0] != orders[1]
    photos = [sorted(name for name in order if "text" not in name) for order in orders]
    assert photos[0] == photos[1]
    assert len(photos[0]) == 10


def test_tokens_images_and_padding_are_those_of_the_model(tmp_path, run):
    assert run("--batches", 1) == 0
    page = read_page(tmp_path / "work_dirs" / "mix" / "browse" / "train-epoch0-rank0of1.html")
    photo, _, text = page.all(name="article")
    assert "".join(element.text for element in photo.all("t", "supervised")) == " red</s>"
    assert "".join(element.text for element in text.all("t", "supervised")) == " one two</s>"
    assert [element.text for element in photo.all("t", "image")] == ["<image>1"]
    assert not text.all("t", "image")
    assert "16 × 16" in photo.all(name="figure")[0].text
    assert "images/red.png, 20 × 30" in photo.text
    counts = [int(article.all("counts")[0].text.split()[0]) for article in (photo, text)]
    longest = max(counts)
    paddings = [int(article.all("counts")[0].text.split(", ")[2].split()[0]) for article in (photo, text)]
    assert paddings == [longest - count for count in counts]
    assert len(text.all("t")) == counts[1]


def test_the_test_split_is_padded_at_the_left(tmp_path, run):
    assert run("--split", "test") == 0
    [section] = read_page(tmp_path / "work_dirs/mix/browse/test-epoch0-rank0of1.html").all(name="section")
    assert [bool(article.all("pad")) for article in section.all(name="article")] == [True, True, True, False]
    assert all(element.text.endswith(", left") for element in section.all("pad"))


def test_images_whose_features_are_cached_are_shown(tmp_path, run):
    page = tmp_path / "work_dirs" / "mix" / "browse" / "train-epoch0-rank0of1.html"
    assert run() == 0
    pixels = page.read_text()
    assert "<img" in pixels
    page.unlink()
    assert run("--cfg-options", "image_steps=${feature_steps}", "feature_cache=never_filled") == 0
    assert page.read_text() == pixels


@pytest.mark.parametrize(
    ("name", "shown"), [("more", {4: ["more0", "more1"]}), ("words", {0: ["text0"], 1: ["text1"]})]
)
def test_only_one_dataset(tmp_path, run, name, shown):
    assert run("--dataset", name, "--batches", 2) == 0
    assert ids(tmp_path, "train-epoch0-rank0of1") == shown


def test_png_is_ignored_with_a_warning_and_the_page_goes_to_another_folder(tmp_path, run, capsys):
    assert run("--png", "--batches", 2, "--out", "pages") == 0
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["train-epoch0-rank0of1.html"]
    assert "warning: --png is ignored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "photo"], "--dataset 'photo': choose one of more, photos, words"),
        (["--batches", 0], "--batches 0: at least one batch"),
        (["--split", "val"], "the config sets no val_dataloader"),
        (["--rank", 2, "--world-size", 2], "rank 2 of 2 processes"),
        (["--split", "test", "--epoch", 1], "epoch 1 of the test split"),
        (["--cfg-options", "data_root=elsewhere"], "elsewhere/photos.jsonl"),
        (["--dataset", "more", "--rank", 6, "--world-size", 8], "no batch with a sample of dataset 'more'"),
    ],
)
def test_wrong_arguments_are_refused(run, capsys, arguments, words):
    assert run(*arguments) == 1
    assert words in capsys.readouterr().err.partition("error: ")[2]
