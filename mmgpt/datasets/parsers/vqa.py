"""Questions about images: one a record (VQAv2 and its like), or several (OCR-VQA)."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from mmgpt.registry import PARSERS

from .fields import field, filled, has, majority, name_of, only_known_media, tagged, text_list

OCR_VQA_SPLITS = {"train": 1, "val": 2, "test": 3}
YES_NO = ("yes", "no")
ANSWER_KEYS = ("answers", "answer")
ID_KEYS = ("question_id", "id", "question_index")


@PARSERS.register_module(name="vqa")
def vqa(record: dict, image: str = "{image}", answer: str | None = None, tags: Sequence[str] = ()) -> dict:
    """A question about an image, and what annotators answered: VQAv2, OK-VQA, VizWiz, TextVQA, GQA, CLEVR.

    Answers are a text, a list of texts, or a list of `{'answer': text}` (VQAv2's and OK-VQA's own files). All are
    kept; the answer is the one that most annotators gave, the first of those that tie. Without any, as in a test
    split, it is open.

    Args:
        record: `question`, and the keys that the other two name.
        image: its path, keys of the record in braces: '{image}' in LAVIS's lists, '{image_id}.jpg' in TextVQA,
            'train2014/COCO_train2014_{image_id:012d}.jpg' in VQAv2's own files.
        answer: key of the answers; default `answers` or `answer`, whichever is there.
        tags: keys that become tags, e.g. 'question_type', 'answer_type'; of GQA's, those under its `types`.
    """
    turn = {"question": field(record, "question").strip(), "answer": ""}
    key = answer or next((key for key in ANSWER_KEYS if has(record, key)), None)
    answers = _answers(record, key) if key else []
    only_known_media(record)
    if answers:
        turn.update(answer=majority(answers), answers=answers)
    sample = {"id": name_of(record, *ID_KEYS), "images": [filled(image, record)], "turns": [turn]}
    return tagged(sample, {**record, **(field(record, "types", dict) if has(record, "types") else {})}, tags)


@PARSERS.register_module(name="pope")
def pope(record: dict, category: str) -> dict:
    """A line of POPE's coco_pope_{random,popular,adversarial}.json (github.com/AoiDragon/POPE): is an object there?

    Args:
        record: `question_id`, `image`, `text`, `label` ('yes' or 'no').
        category: which of the three files it is; becomes a tag.
    """
    turn = {"question": field(record, "text").strip(), "answer": field(record, "label"), "choices": list(YES_NO)}
    if turn["answer"] not in YES_NO:
        raise ValueError(f"key 'label' must be one of {', '.join(YES_NO)}, got {turn['answer']!r:.80}")
    name = f"{category}-{field(record, 'question_id', int)}"
    return {"id": name, "images": [field(record, "image")], "turns": [turn], "tags": {"category": category}}


@PARSERS.register_module(name="ocr_vqa")
def ocr_vqa(record: dict, split: str | None = None) -> dict | None:
    """A book cover of OCR-VQA (ocr-vqa.github.io) with its questions, one turn each, for PickTurn to choose from.

    Args:
        record: `questions`, `answers`, and either `filename` (MultiModal-GPT's list) or `id` and `imageURL`
            (the official dataset.json: an object by id; its images are saved as the id with the address's suffix).
        split: 'train', 'val' or 'test' keeps only that split of the one file: None for any other record.
    """
    if split is not None and _split_number(split) != field(record, "split", int):
        return None
    questions, answers = text_list(record, "questions"), text_list(record, "answers")
    if len(questions) != len(answers):
        raise ValueError(f"{len(questions)} questions, but {len(answers)} answers")
    image = _image(record)
    turns = [{"question": question, "answer": answer} for question, answer in zip(questions, answers, strict=True)]
    return {"id": name_of(record, "id") or PurePosixPath(image).stem, "images": [image], "turns": turns}


def _answers(record: dict, key: str) -> list[str]:
    given = field(record, key, (str, list))
    if isinstance(given, list) and all(isinstance(entry, dict) for entry in given):
        return [field(entry, "answer").strip() for entry in given]
    return text_list(record, key)


def _split_number(split: str) -> int:
    if split not in OCR_VQA_SPLITS:
        raise ValueError(f"unknown split {split!r} of OCR-VQA: choose among {', '.join(OCR_VQA_SPLITS)}")
    return OCR_VQA_SPLITS[split]


def _image(record: dict) -> str:
    if has(record, "filename"):
        return field(record, "filename")
    return field(record, "id") + PurePosixPath(field(record, "imageURL")).suffix
