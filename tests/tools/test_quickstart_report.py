"""The quickstart report on a small world and a stub model that names the colour it is shown."""

import importlib
import io
import json
import sys
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmgpt.cli import load_config
from mmgpt.registry import MODELS

TOOLS = Path(__file__).parents[2] / "tools/analysis_tools"
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
# Objects in each scene, and which ones hold an unseen pair.
SCENES = [1, 1, 2, 2, 3, 4]
UNSEEN = {1, 3}


@MODELS.register_module(force=True)
class ColorNamingModel(torch.nn.Module):
    """Says the colour of the image, 'nothing' when it is disabled or the image is black, 'yes' without an image."""

    def __init__(self):
        super().__init__()
        self.trained = torch.nn.Parameter(torch.zeros(1))
        self.tuned = True

    @contextmanager
    def disabled(self):
        self.tuned = False
        yield
        self.tuned = True

    def test_step(self, batch):
        return [dict(meta, prediction=self.say(batch, row)) for row, meta in enumerate(batch["metas"])]

    def say(self, batch, row):
        if not batch["image_counts"][row]:
            return "yes"
        pixels = batch["pixels"][row, 0].mean(dim=(1, 2))
        return list(COLOURS)[pixels.argmax()] if self.tuned and pixels.max() > 0 else "nothing"


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("quickstart_report")
    sys.path.remove(str(TOOLS))


def conversation(number, image, question, answer):
    turn = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": str(number), "image": image, "conversations": turn}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Six scenes of shapes and three of digits, questions about them, and three text-only questions."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "images/heldout").mkdir(parents=True)
    scenes, colour, digits = {}, [], []
    for number, objects in enumerate([*SCENES, 0, 0, 0]):
        name, value = list(COLOURS.items())[number % 3]
        image = f"heldout/{number:04}.png"
        Image.new("RGB", (16, 16), value).save(folder / "images" / image)
        facts = dict(kind="shapes" if objects else "digits", split="heldout", unseen=number in UNSEEN)
        scenes[image] = facts | {"objects": [{}] * objects}
        scenes[f"train/{number:04}.png"] = facts | {"split": "train", "objects": [{}]}
        (colour if objects else digits).append(conversation(number, image, "What colour?", name))
    (folder / "scenes.json").write_text(json.dumps(scenes))
    (folder / "colour.json").write_text(json.dumps(colour))
    (folder / "digits.json").write_text(json.dumps(digits))
    dolly = [dict(instruction="Say it.", context="", response=text, category="qa") for text in ("yes", "no", "yes")]
    (folder / "dolly.jsonl").write_text("".join(json.dumps(record) + "\n" for record in dolly))
    return folder


@pytest.fixture(scope="module")
def experiment(world, tiny_llama):
    """Its config file and work dir with checkpoint and scalars."""
    steps = [
        dict(type="FormatPrompt", template="short", open_last=True),
        dict(type="TokenizeSegments", tokenizer=tiny_llama, max_length=100),
        dict(type="PackInputs"),
    ]
    images = [dict(type="LoadImages"), dict(type="PrepareImages", size=16, mean=(0, 0, 0), std=(1, 1, 1))]
    shared = dict(type="InstructionDataset", data_root="${data_root}", test_mode=True)
    visual = dict(shared, parser="llava", data_prefix=dict(img="images"), pipeline=images + steps)
    parts = [dict(visual, name=name, ann_file=f"{name}.json") for name in ("colour", "digits")]
    text = dict(shared, parser="dolly", name="dolly", source="language", ann_file="dolly.jsonl", pipeline=steps)
    collate = dict(type="collate_conversations", padding_side="left")
    loader = dict(batch_size=4, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False), collate_fn=collate)
    loader["dataset"] = dict(type="JointDataset", visual=parts, language=[text])
    config = world / "config.py"
    config.write_text(
        f"default_scope = 'mmgpt'\ndata_root = 'elsewhere'\nmodel = dict(type='ColorNamingModel')\n"
        f"test_dataloader = {loader!r}\n"
    )
    work_dir = world / "work"
    (work_dir / "20260101/vis_data").mkdir(parents=True)
    torch.save(dict(state_dict=dict(trained=torch.ones(1))), work_dir / "latest.pth")
    lines = [json.dumps(dict(loss=1 / step, lr=0.1, step=step)) for step in range(1, 9)]
    (work_dir / "20260101/vis_data/scalars.json").write_text("\n".join(lines))
    (world / "seconds.json").write_text(json.dumps(dict(data=3.5, tuning=40)))
    return config, work_dir


@pytest.fixture(scope="module")
def results(tool, world, experiment):
    config, work_dir = experiment
    arguments = [str(config), str(work_dir / "latest.pth"), "--out", str(world / "out"), "--data-root", str(world)]
    printed = io.StringIO()
    with redirect_stdout(printed):
        tool.main([*arguments, "--seconds", str(world / "seconds.json")])
    return world / "out", json.loads((world / "out/report.json").read_text()), printed.getvalue()


def test_main_scores_are_of_one_and_two_objects(results):
    report = results[1]
    counts = {"colour": 4, "digits": 3}
    assert report["tuned"] == {"visual_mean": 100, "colour": 100, "digits": 100, "dolly": 66.67,
                               "counts": counts | {"dolly": 3}}  # fmt: skip
    assert report["before"] == {"visual_mean": 0, "colour": 0, "digits": 0, "dolly": 66.67,
                                "counts": counts | {"dolly": 3}}  # fmt: skip
    assert report["zero_image"] == {"visual_mean": 0, "colour": 0, "digits": 0, "counts": counts}


def test_another_samples_image_changes_the_answer_but_not_the_questions(results):
    other = results[1]["other_image"]
    assert other["counts"] == {"colour": 4, "digits": 3}
    # Three digit images of three colours: none keeps its own.
    assert other["digits"] == 0
    assert other["colour"] < 100


def test_scores_by_scene(results):
    report = results[1]
    assert {n: part["counts"]["colour"] for n, part in report["by_objects"].items()} == {"1": 2, "2": 2, "3": 1, "4": 1}
    assert report["unseen_pairs"]["counts"] == {"colour": 2}
    assert report["seen_pairs"]["counts"] == {"colour": 2}
    assert report["text_only"] == {"dolly": 66.67}
    assert report["by_objects"]["4"]["visual_mean"] == 100


def test_seconds_are_added_up(results):
    seconds = results[1]["seconds"]
    assert seconds["data"] == 3.5
    assert seconds["tuning"] == 40
    assert seconds["evaluate"] > 0
    assert seconds["total"] == pytest.approx(43.5 + seconds["evaluate"])


def test_tables_are_printed_and_files_written(results):
    out, _, printed = results
    for text in ("tuned", "before", "other image", "zero image", "colour", "digits", "dolly", "unseen pairs", "66.7"):
        assert text in printed
    for name in ("report.json", "pictures.png", "curves.png"):
        assert str(out / name) in printed.replace("\n", "")
        assert (out / name).stat().st_size > 100
    answers = [json.loads(line) for line in (out / "answers/tuned.jsonl").read_text().splitlines()]
    assert len(answers) == 12


def test_the_sheet_shows_the_first_questions_of_each_visual_family(tool, experiment, world, results):
    cfg = load_config(experiment[0], dict(data_root=str(world)))
    scenes = tool.Scenes(world / "scenes.json")
    parts = tool.Evaluation(cfg, None, scenes).datasets
    rows = [json.loads(line) for line in (results[0] / "answers/tuned.jsonl").read_text().splitlines()]
    chosen = tool.sheet_rows(rows, parts)
    assert [row["dataset"] for row in chosen] == ["colour", "colour", "digits", "digits"]
    assert all(row["image"].is_file() for row in chosen)


def test_components_trained_in_full_leave_no_model_before_tuning(tool, experiment, world):
    cfg = load_config(experiment[0], dict(data_root=str(world)))
    model, scenes = ColorNamingModel(), tool.Scenes(world / "scenes.json")
    model.trained_in_full = ("gated",)
    rows = tool.Evaluation(cfg, model, scenes).run()
    report = tool.make_report(rows, scenes)
    assert "before" not in report
    assert report["tuned"]["visual_mean"] == 100
    headings = [str(column.header) for table in tool.tables(report, rows).values() for column in table.columns]
    assert "tuned" in headings
    assert "other image" in headings
    assert "before" not in headings


def test_missing_scenes_and_unknown_images_are_named(tool, experiment, world, tmp_path):
    with pytest.raises(FileNotFoundError, match="scenes.json"):
        tool.Scenes(tmp_path / "scenes.json")
    with pytest.raises(KeyError, match="0 images are named 'x/unknown.png'"):
        tool.Scenes(world / "scenes.json").of(["x/unknown.png"])


@pytest.mark.parametrize("dataset", [
    dict(type="ConcatDataset", datasets=[1, 2, 3]), dict(type="JointDataset", visual=[1, 2], language=[3]),
])  # fmt: skip
def test_dataset_configs_of_a_test_set(tool, dataset):
    assert tool.dataset_configs(dataset) == [1, 2, 3]
    assert tool.dataset_configs(dict(type="InstructionDataset")) == [dict(type="InstructionDataset")]
