"""Parsers of questions about images: one per record (VQAv2 and similar), or several (OCR-VQA)."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from mmgpt.registry import PARSERS

from .fields import add_tags, field, fill_pattern, has, majority, name_of, refuse_other_media, text_list

OCR_VQA_SPLITS = {"train": 1, "val": 2, "test": 3}
YES_NO = ("yes", "no")
ANSWER_KEYS = ("answers", "answer")
ID_KEYS = ("question_id", "id", "question_index")


@PARSERS.register_module(name="vqa")
def vqa(record: dict, image: str = "{image}", answer: str | None = None, tags: Sequence[str] = ()) -> dict:
    """Question about an image with the answers of annotators: VQAv2, OK-VQA, VizWiz, TextVQA, GQA, CLEVR.

    The record's answers are a text, a list of texts, or a list of `{'answer': text}` (VQAv2's and OK-VQA's own files).
    All become `answers`; the answer is the one that most annotators gave, the first of those that tie. Without any, as
    in a test split, the answer is empty.

    Args:
        record: `question`, and the keys that the other arguments name.
        image: path of the image, with keys of the record in braces: '{image}' in LAVIS's lists, '{image_id}.jpg' in
            TextVQA, 'train2014/COCO_train2014_{image_id:012d}.jpg' in VQAv2's own files.
        answer: key of the answers; default `answers` or `answer`, whichever the record has.
        tags: keys that become tags, e.g. 'question_type', 'answer_type'; for GQA, keys of its `types`.
    """
    turn = {"question": field(record, "question").strip(), "answer": ""}
    key = answer or next((key for key in ANSWER_KEYS if has(record, key)), None)
    answers = []
    if key:
        value = field(record, key, (str, list))
        if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
            answers = [field(entry, "answer").strip() for entry in value]
        else:
            answers = text_list(record, key)
    refuse_other_media(record)
    if answers:
        turn.update(answer=majority(answers), answers=answers)
    sample = {"id": name_of(record, *ID_KEYS), "images": [fill_pattern(image, record)], "turns": [turn]}
    return add_tags(sample, {**record, **(field(record, "types", dict) if has(record, "types") else {})}, tags)


@PARSERS.register_module(name="pope")
def pope(record: dict, category: str) -> dict:
    """Line of POPE's coco_pope_{random,popular,adversarial}.json (github.com/AoiDragon/POPE): is an object present?

    Args:
        record: `question_id`, `image`, `text`, `label` ('yes' or 'no').
        category: name of the file (random, popular or adversarial); becomes a tag.
    """
    turn = {"question": field(record, "text").strip(), "answer": field(record, "label"), "choices": list(YES_NO)}
    if turn["answer"] not in YES_NO:
        raise ValueError(f"key 'label' must be one of {', '.join(YES_NO)}, got {turn['answer']!r:.80}")
    name = f"{category}-{field(record, 'question_id', int)}"
    return {"id": name, "images": [field(record, "image")], "turns": [turn], "tags": {"category": category}}


@PARSERS.register_module(name="ocr_vqa")
def ocr_vqa(record: dict, split: str | None = None) -> dict | None:
    """Book cover of OCR-VQA (ocr-vqa.github.io) with its questions, one turn each; PickTurn chooses one.

    Args:
        record: `questions`, `answers`, and either `filename` (MultiModal-GPT's list) or `id` and `imageURL`
            (the official dataset.json: an object by id; image files are named by the id and the suffix of the URL).
        split: 'train', 'val' or 'test'; None is returned for records of the file's other splits.
    """
    if split is not None:
        if split not in OCR_VQA_SPLITS:
            raise ValueError(f"unknown split {split!r} of OCR-VQA: choose among {', '.join(OCR_VQA_SPLITS)}")
        if OCR_VQA_SPLITS[split] != field(record, "split", int):
            return None
    questions, answers = text_list(record, "questions"), text_list(record, "answers")
    if len(questions) != len(answers):
        raise ValueError(f"{len(questions)} questions, but {len(answers)} answers")
    if has(record, "filename"):
        image = field(record, "filename")
    else:
        image = field(record, "id") + PurePosixPath(field(record, "imageURL")).suffix
    turns = [{"question": question, "answer": answer} for question, answer in zip(questions, answers, strict=True)]
    return {"id": name_of(record, "id") or PurePosixPath(image).stem, "images": [image], "turns": turns}
