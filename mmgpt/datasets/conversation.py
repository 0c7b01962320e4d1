"""The one sample schema, and its check.

A sample is `{'id': str, 'images': [path, ...], 'turns': [turn, ...]}`, and `'tags': {name: str | [str, ...]}` where
scores are wanted by groups of samples. A turn is `{'question': str | [part, ...],
'answer': str, 'context': str, 'answers': [str], 'choices': [str], 'rationales': [str]}`, of which only the question is
needed; a part is `{'type': 'image'}` or `{'type': 'text', 'text': str}`.
A question that is a string is literal text throughout: `<image>` typed in it is no image.
"""

import re
from collections.abc import Iterator, Sequence

IMAGE_PART = {"type": "image"}
# LLaVA's and its followers' `<image>`, `<video>`, `<image_1>`, Qwen-VL's `<img>path</img>` and `<|vision_start|>`, and
# `<|image|>`, `<|image_1|>` of others.
MEDIA_MARK = re.compile(
    r"<(?:image|video|audio|speech|sound)(?:_?\d+)?>|<image_placeholder>|<ImageHere>|<(?:img|video|audio)>[^<>\n]+</\w+>"
    r"|<\|(?:image|video|audio|vision_start|image_pad|video_pad)(?:_\d+)?\|>"
)
TEXT_KEYS = ("answer", "context")
LIST_KEYS = ("answers", "choices", "rationales")


def text_part(text: str) -> dict:
    """A part of a question that is text."""
    return {"type": "text", "text": text}


def is_image(part: dict) -> bool:
    """Whether a part of a question is the place of an image."""
    return part["type"] == "image"


def question_parts(question: str | Sequence[dict]) -> list[dict]:
    """A question as a list of parts, empty texts left out."""
    parts = [text_part(question)] if isinstance(question, str) else question
    return [part for part in parts if is_image(part) or part["text"]]


def question_text(question: str | Sequence[dict]) -> str:
    """The text of a question, without the places of images."""
    return "".join(part["text"] for part in question_parts(question) if not is_image(part))


def unread_marks(sample: dict) -> list[str]:
    """Marks of media that other projects put into texts, each once, as they stand in the texts of a sample's questions.

    They are read as text, whatever was meant by them.
    """
    texts = (question_text(turn["question"]) for turn in sample["turns"])
    return list(dict.fromkeys(mark for text in texts if "<" in text for mark in MEDIA_MARK.findall(text)))


def add_text(question: str | Sequence[dict], text: str) -> str | list[dict]:
    """A question with text put behind it, one space between; a new object, the old one is not changed."""
    joined = f" {text}" if question_text(question) else text
    return question + joined if isinstance(question, str) else [*question, text_part(joined)]


def leading_images(parts: Sequence[dict]) -> int:
    """How many images some parts begin with."""
    return next((i for i, part in enumerate(parts) if not is_image(part)), len(parts))


def lead_text(text: str, question: str | Sequence[dict]) -> str | list[dict]:
    """A question with text put before it, behind its leading images, a blank line between; empty text adds nothing."""
    if not text:
        return question
    if isinstance(question, str):
        return f"{text}\n\n{question}"
    images = leading_images(question)
    return [*question[:images], text_part(f"{text}\n\n"), *question[images:]]


def count_images(turns: Sequence[dict]) -> int:
    """The number of image places in the questions of some turns."""
    questions = [turn["question"] for turn in turns if not isinstance(turn["question"], str)]
    return sum(is_image(part) for question in questions for part in question)


def place_images(turns: Sequence[dict], images: int) -> list[dict]:
    """Turns with a place for every image.

    Where no question has an image part, all images belong to the start of the first turn.

    Args:
        turns: of one sample; not changed.
        images: number of images of the sample.

    Raises:
        ValueError: the image parts are not as many as the images.
    """
    marks = count_images(turns)
    if marks == images:
        return list(turns)
    if marks:
        raise ValueError(f"{images} images, but {marks} image places in its questions")
    first = dict(turns[0], question=[IMAGE_PART] * images + question_parts(turns[0]["question"]))
    return [first, *turns[1:]]


def check_sample(sample: dict) -> dict:
    """Returns a sample as it is when it follows the schema.

    Raises:
        ValueError: it does not; names the key and the value.
    """
    images, turns = sample.get("images"), sample.get("turns")
    if not _strings(images):
        raise ValueError(f"images must be a list of paths, got {images!r}")
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"a sample needs a list with at least one turn, got {turns!r}")
    for turn in turns:
        _check_turn(turn)
    marks = count_images(turns)
    if marks and marks != len(images):
        raise ValueError(f"{len(images)} images, but {marks} image places in its questions")
    for name, value in sample.get("tags", {}).items():
        if not isinstance(value, str) and not _strings(value):
            raise ValueError(f"tag {name!r} must be a string or a list of strings, got {value!r}")
    if not isinstance(sample.get("id"), str):
        raise ValueError(f"id must be a string ('' where the record has none), got {sample.get('id')!r}")
    return sample


def _check_turn(turn: dict) -> None:
    if not _is_question(turn.get("question")):
        raise ValueError(f"a question must be a string or a list of parts, got {turn.get('question')!r}")
    for key, value in turn.items():
        if key in TEXT_KEYS and not isinstance(value, str):
            raise ValueError(f"{key} must be a string, got {value!r}")
        if key in LIST_KEYS and not _strings(value):
            raise ValueError(f"{key} must be a list of strings, got {value!r}")


def _strings(value) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_question(question) -> bool:
    return isinstance(question, str) or (isinstance(question, list) and all(map(_is_part, question)))


def _is_part(part) -> bool:
    if not isinstance(part, dict) or part.get("type") not in ("image", "text"):
        return False
    return is_image(part) or isinstance(part.get("text"), str)


def each_turn(sample: dict) -> Iterator[dict]:
    """A sample for each turn of one whose images belong to all of them."""
    for number, turn in enumerate(sample["turns"]):
        yield dict(sample, id=f"{sample['id']}-{number}", turns=[turn])
