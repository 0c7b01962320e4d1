"""Questions about images, several to an image: OCR-VQA."""

from pathlib import PurePosixPath

from mmgpt.registry import PARSERS

from .fields import field, text_list

OCR_VQA_SPLITS = {"train": 1, "val": 2, "test": 3}


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
    return {"id": str(record.get("id", PurePosixPath(image).stem)), "images": [image], "turns": turns}


def _split_number(split: str) -> int:
    if split not in OCR_VQA_SPLITS:
        raise ValueError(f"unknown split {split!r} of OCR-VQA: choose among {', '.join(OCR_VQA_SPLITS)}")
    return OCR_VQA_SPLITS[split]


def _image(record: dict) -> str:
    if "filename" in record:
        return field(record, "filename")
    return field(record, "id") + PurePosixPath(field(record, "imageURL")).suffix
