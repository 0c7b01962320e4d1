"""What the inferencer is asked: inputs of several kinds, checked and brought to the one schema of samples."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mmgpt.apis.conversation import Conversation
from mmgpt.apis.pictures import read_picture
from mmgpt.datasets.conversation import question_text
from mmgpt.datasets.parsers.schema import conversation
from mmgpt.datasets.records import parse_record

RECORDS = (".jsonl", ".json")


class Asked(NamedTuple):
    """One input: its number, its sample in our schema (images by name), and its images, files or PIL images."""

    number: int
    sample: dict
    images: list[Path | Image.Image]

    def conversation(self) -> Conversation:
        """The conversation up to the last question, its images read."""
        return Conversation(self.sample["turns"], [read_picture(image) for image in self.images])


def read_input(number: int, item: object, question: str | None = None, folder: str | Path = "") -> Asked:
    """One input, checked; its images are not read yet.

    Raises:
        ValueError: it has no question, an earlier question without an answer, or does not follow the schema.
    """
    record = _record(item, question)
    images = [] if record.get("images") is None else record["images"]
    if not isinstance(images, list) or not all(isinstance(image, (str, Path, Image.Image)) for image in images):
        raise ValueError(f"images must be a list of files or PIL images, got {images!r:.80}")
    names = [getattr(image, "filename", "") if isinstance(image, Image.Image) else str(image) for image in images]
    sample = parse_record(conversation, number, {**record, "images": names})
    *earlier, last = sample["turns"]
    for place, turn in enumerate(earlier):
        if not turn.get("answer"):
            raise ValueError(f"turn {place} has no answer: only the last question of an input is answered")
    if not question_text(last["question"]).strip():
        raise ValueError("the question is empty")
    files = [image if isinstance(image, Image.Image) else Path(folder, image) for image in images]
    return Asked(number, sample, files)


def is_records(inputs: object) -> bool:
    """Whether some inputs are the path of a file of samples."""
    return isinstance(inputs, (str, Path)) and Path(inputs).suffix.lower() in RECORDS


@contextmanager
def naming(number: int) -> Iterator[None]:
    """Within it, an error about an input tells its number."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"input {number}: {error}") from error


def _record(item: object, question: str | None) -> dict:
    if isinstance(item, tuple):
        if len(item) != 2:
            raise ValueError(f"a tuple is a pair (image, question), got {len(item)} values")
        images, question = item
        images = [] if images is None else images if isinstance(images, list) else [images]
        item = {"images": images}
    elif not isinstance(item, Mapping):
        item = {"images": [item]}
    if "turns" in item:
        return dict(item)
    question = item.get("question", question)
    if question is None:
        raise ValueError("there is no question: give one with each input, or `question` for all")
    return {**{key: value for key, value in item.items() if key != "question"}, "turns": [{"question": question}]}
