"""Annotation records of scenes in the layouts of published datasets.

Image names in the records are relative to the folder `images` of the data.
"""

import json
import re

from .dialogues import reading, three_turns
from .questions import FAMILIES
from .statements import captions, description, statements

UNIQUE = re.compile(r"the \w+ is \w+\.|the \w+ shape is an? \w+\.")
ABOUT_ONE_OBJECT = re.compile(
    UNIQUE.pattern + r"|relative to .*|the \w+ \w+ is (at|in) the .*|.*: (yes|no)\.|the number of .*"
)


def write_json(path, value):
    """Writes one JSON file, with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def write_json_lines(path, records):
    """Writes one JSON record a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")


def image_id(image):
    """The number in an image's name, unique in all splits: 'train/000000000012.png' -> 12."""
    return int(image.rsplit("/", 1)[1].split(".")[0])


def coco_records(scenes):
    """COCO Caption, as converted for MultiModal-GPT: all captions of an image in one record."""
    return [dict(image=i, caption=captions(s), image_id=f"coco_{image_id(i)}") for i, s in scenes]


def statement_records(scenes, rng):
    """COCO Caption layout, each image with every plain statement about it, for pretraining."""
    return [dict(image=i, caption=statements(s, rng), image_id=f"coco_{image_id(i)}") for i, s in scenes]


def distinguishing_records(records, scenes):
    """The records of `statement_records` for images of several digits, and of several shapes with a unique one.

    An object is unique where its colour alone or its shape alone names it. Of the statements about shapes, those about
    single objects are used.
    """
    by_image, distinguishing = dict(scenes), []
    for record in records:
        scene = by_image[record["image"]]
        if scene["kind"] == "digits" and len(scene["digits"]) > 1:
            distinguishing.append(record)
        if scene["kind"] == "shapes" and len(scene["objects"]) > 1 and any(map(UNIQUE.fullmatch, record["caption"])):
            distinguishing.append(
                {**record, "caption": [line for line in record["caption"] if ABOUT_ONE_OBJECT.fullmatch(line)]}
            )
    return distinguishing


def aokvqa_records(family, split, pairs):
    """A-OKVQA records of (image, Question) pairs: the official keys, and `image` as MultiModal-GPT reads it."""
    return [
        dict(
            split=split,
            image_id=image_id(image),
            image=image,
            question_id=f"{family}_{split}_{number}",
            question=question.text,
            choices=question.choices,
            correct_choice_idx=question.choices.index(question.answer),
            direct_answers=[question.answer] * 10,
            difficult_direct_answer=False,
            rationales=[question.reason] * 3,
        )
        for number, (image, question) in enumerate(pairs)
    ]


def ask(family, scenes, rng):
    """(image, Question) pairs of a family, for the scenes that have such a question."""
    pairs = ((image, FAMILIES[family](scene, rng)) for image, scene in scenes)
    return [(image, question) for image, question in pairs if question is not None]


def ocr_vqa_records(scenes, split, rng):
    """OCR-VQA as published: a dict keyed by id; `filename` as MultiModal-GPT adds it. Split 1 trains, 3 tests."""
    records = {}
    for image, scene in scenes:
        question, answer = reading(scene, rng)
        records[f"{image_id(image):012d}"] = dict(
            imageURL=image,
            filename=image,
            title=answer,
            authorName="",
            genre=scene["kind"],
            questions=[question],
            answers=[answer],
            split=1 if split == "train" else 3,
        )
    return records


def llava_records(scenes, rng):
    """LLaVA conversations of three turns; the image stands in the first."""
    records = []
    for image, scene in scenes:
        turns = three_turns(scene, rng)
        if turns is None:
            continue
        messages = [dict(zip(("from", "value"), pair, strict=True)) for turn in turns for pair in _speakers(turn)]
        messages[0]["value"] = "<image>\n" + messages[0]["value"]
        records.append(dict(id=f"{image_id(image):012d}", image=image, conversations=messages))
    return records


def _speakers(turn):
    return zip(("human", "gpt"), turn, strict=True)


def cc_sbu_annotations(scenes):
    """MiniGPT-4's cc_sbu_align: longer descriptions; the images are named after `image_id`."""
    return dict(annotations=[dict(image_id=f"{image_id(i):012d}", caption=description(s)) for i, s in scenes])
