"""Schema of a sample, its check, and functions on questions and turns.

A sample is `{'id': str, 'images': [path or data URI, ...], 'turns': [turn, ...]}`, with `'system': str` where it has a
system text, and `'tags': {name: str | [str, ...]}` where scores are reported by groups of samples. A turn is
`{'question': str | [content, ...], 'answer': str, 'context': str, 'answers': [str], 'choices': [str], 'rationales':
[str]}`, of which only the question is required; a content is `{'type': 'image'}` or `{'type': 'text', 'text': str}`. A
question that is a string is literal text: `<image>` typed in it is not an image.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

IMAGE_CONTENT = {"type": "image"}
# The marks of other projects: LLaVA's and its followers' `<image>`, `<video>`, `<image_1>`, Qwen-VL's `<img>path</img>`
# and `<|vision_start|>`, and `<|image|>`, `<|image_1|>`.
MEDIA_MARK = re.compile(
    r"<(?:image|video|audio|speech|sound)(?:_?\d+)?>|<image_placeholder>|<ImageHere>|<(?:img|video|audio)>[^<>\n]+</\w+>"
    r"|<\|(?:image|video|audio|vision_start|image_pad|video_pad)(?:_\d+)?\|>"
)
WEB_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
TEXT_KEYS = ("answer", "context")
LIST_KEYS = ("answers", "choices", "rationales")


def text_content(text: str) -> dict:
    """Text content of a question."""
    return {"type": "text", "text": text}


def is_image(content: dict) -> bool:
    """Whether a content of a question is an image."""
    return content["type"] == "image"


def question_contents(question: str | Sequence[dict]) -> list[dict]:
    """Contents of a question, without empty texts."""
    contents = [text_content(question)] if isinstance(question, str) else question
    return [content for content in contents if is_image(content) or content["text"]]


def question_text(question: str | Sequence[dict]) -> str:
    """Text of a question, without its images."""
    return "".join(content["text"] for content in question_contents(question) if not is_image(content))


def literal_media_marks(sample: dict) -> list[str]:
    """Different marks of media, as other projects put them into texts, in the texts of a sample's questions.

    They are read as text, although their author may have meant images.
    """
    texts = (question_text(turn["question"]) for turn in sample["turns"])
    return list(dict.fromkeys(mark for text in texts if "<" in text for mark in MEDIA_MARK.findall(text)))


def first_media_mark(samples: Iterable[dict]) -> tuple[int, int, str] | None:
    """Number of samples with marks of media that are read as text, and record and mark of the first; None without."""
    marked = [(sample["record"], marks[0]) for sample in samples if (marks := literal_media_marks(sample))]
    return (len(marked), *marked[0]) if marked else None


def append_text(question: str | Sequence[dict], text: str) -> str | list[dict]:
    """New question with a text after it, separated by a space."""
    suffix = f" {text}" if question_text(question) else text
    return question + suffix if isinstance(question, str) else [*question, text_content(suffix)]


def leading_images(contents: Sequence[dict]) -> int:
    """Number of images before the first text."""
    return next((i for i, content in enumerate(contents) if not is_image(content)), len(contents))


def prepend_text(text: str, question: str | Sequence[dict]) -> str | list[dict]:
    """New question with a text before it, after its leading images, separated by a blank line; '' adds nothing."""
    if not text:
        return question
    if isinstance(question, str):
        return f"{text}\n\n{question}"
    images = leading_images(question)
    return [*question[:images], text_content(f"{text}\n\n"), *question[images:]]


def join_messages(messages: Sequence[Sequence[dict]]) -> list[dict]:
    """Question of the contents of user messages that follow each other; texts that follow each other get a line each.

    Images after all of the text go before it, unless there are others within the text. The meaning is the same, and
    models are tuned with images first (see the parser of LLaVA's dialogues).
    """
    contents = _images_first([content for message in messages for content in _images_first(message)])
    question: list[dict] = []
    for content in contents:
        follows_text = bool(question) and not is_image(question[-1]) and not is_image(content)
        question.append(text_content(f"\n{content['text']}") if follows_text else content)
    return question


def _images_first(contents: Sequence[dict]) -> list[dict]:
    images = [content for content in contents if is_image(content)]
    texts = [content for content in contents if not is_image(content)]
    start = leading_images(contents)
    return [*images, *texts] if list(contents[start : start + len(texts)]) == texts else list(contents)


def count_images(turns: Sequence[dict]) -> int:
    """Number of image contents in the questions of turns."""
    questions = [turn["question"] for turn in turns if not isinstance(turn["question"], str)]
    return sum(is_image(content) for question in questions for content in question)


def place_images(turns: Sequence[dict], images: int) -> list[dict]:
    """Turns with an image content for every image.

    Where no question has one, all images are put at the start of the first turn.

    Args:
        turns: turns of one sample; not changed.
        images: number of images of the sample.

    Raises:
        ValueError: the questions have another number of image contents.
    """
    contents = count_images(turns)
    if contents == images:
        return list(turns)
    if contents:
        raise ValueError(f"{images} images, but {contents} image contents in its questions")
    first = dict(turns[0], question=[IMAGE_CONTENT] * images + question_contents(turns[0]["question"]))
    return [first, *turns[1:]]


def split_turns(sample: dict) -> Iterator[dict]:
    """A sample for each turn of a sample whose images belong to all turns."""
    for number, turn in enumerate(sample["turns"]):
        yield dict(sample, id=f"{sample['id']}-{number}", turns=[turn])


def check_sample(sample: dict) -> dict:
    """The sample itself, if it follows the schema.

    Raises:
        ValueError: it does not follow the schema; names the key and the value.
    """
    images, turns = sample.get("images"), sample.get("turns")
    if not _is_text_list(images):
        raise ValueError(f"images must be a list of paths, got {images!r}")
    for image in images:
        if WEB_ADDRESS.match(image):
            raise ValueError(f"image {image!r:.200} is on the web: download it, and name the file")
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"a sample needs a list with at least one turn, got {turns!r}")
    for turn in turns:
        question = turn.get("question")
        if not isinstance(question, str) and not isinstance(question, list):
            raise ValueError(f"a question must be a string or a list of contents, got {question!r}")
        for content in question if isinstance(question, list) else ():
            kind = content.get("type") if isinstance(content, dict) else None
            if kind != "image" and not (kind == "text" and isinstance(content.get("text"), str)):
                raise ValueError(f"a question must be a string or a list of contents, got {question!r}")
        for key, value in turn.items():
            if key in TEXT_KEYS and not isinstance(value, str):
                raise ValueError(f"{key} must be a string, got {value!r}")
            if key in LIST_KEYS and not _is_text_list(value):
                raise ValueError(f"{key} must be a list of strings, got {value!r}")
    contents = count_images(turns)
    if contents and contents != len(images):
        raise ValueError(f"{len(images)} images, but {contents} image contents in its questions")
    if not isinstance(sample.get("system", ""), str):
        raise ValueError(f"system must be a string, got {sample['system']!r}")
    for name, value in sample.get("tags", {}).items():
        if not isinstance(value, str) and not _is_text_list(value):
            raise ValueError(f"tag {name!r} must be a string or a list of strings, got {value!r}")
    if not isinstance(sample.get("id"), str):
        raise ValueError(f"id must be a string ('' where the record has none), got {sample.get('id')!r}")
    return sample


def _is_text_list(value) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
