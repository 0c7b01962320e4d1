"""Inputs of users: images, and questions of several forms, checked and brought to the one schema of samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mmgpt.apis.conversation import Conversation
from mmgpt.datasets.conversation import question_text
from mmgpt.datasets.image_folders import image_path
from mmgpt.datasets.parsers.schema import conversation
from mmgpt.datasets.records import parse_record
from mmgpt.datasets.transforms import LoadImages
from mmgpt.datasets.transforms.images import upright_rgb

ANNOTATION_SUFFIXES = (".jsonl", ".json")


def read_image(image: str | Path | Image.Image) -> Image.Image:
    """Image file of any format and size, or PIL image, read the same way as training reads it: upright and RGB.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a readable image.
    """
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    return LoadImages()({"images": [str(image)]})["pil"][0]


class InferenceInput(NamedTuple):
    """One input: its index, its sample in our schema (images by name), and its images, files or PIL images."""

    index: int
    sample: dict
    images: list[str | Image.Image]

    def conversation(self) -> Conversation:
        """The conversation up to the last question, its images read."""
        images = [read_image(image) for image in self.images]
        return Conversation(self.sample["turns"], images, self.sample.get("system", ""))


def read_input(index: int, item: object, question: str | None = None, folder: str | Path = "") -> InferenceInput:
    """One input, checked; its images are not read yet.

    Args:
        index: of the input among all inputs.
        item: a dict with ``question`` or ``turns``, a pair (image, question), or an image.
        question: for an input without one.
        folder: that paths of images start from.

    Raises:
        ValueError: the input has no question, or an earlier question without an answer, or does not follow the schema.
    """
    # 1. Every form becomes a record with images and turns.
    if isinstance(item, tuple):
        if len(item) != 2:
            raise ValueError(f"a tuple is a pair (image, question), got {len(item)} values")
        images, question = item
        item = {"images": [] if images is None else images if isinstance(images, list) else [images]}
    elif not isinstance(item, Mapping):
        item = {"images": [item]}
    record = dict(item)
    if "turns" not in record:
        question = record.pop("question", question)
        if question is None:
            raise ValueError("there is no question: put one into each input, or pass `question` for all of them")
        record["turns"] = [{"question": question}]
    # 2. The record becomes a sample.
    images = [] if record.get("images") is None else record["images"]
    if not isinstance(images, list) or not all(isinstance(image, (str, Path, Image.Image)) for image in images):
        raise ValueError(f"images must be a list of files or PIL images, got {images!r:.80}")
    names = [getattr(image, "filename", "") if isinstance(image, Image.Image) else str(image) for image in images]
    sample = parse_record(conversation, index, {**record, "images": names})
    # 3. Only the last question of the sample is open.
    *earlier, last = sample["turns"]
    for number, turn in enumerate(earlier):
        if not turn.get("answer"):
            raise ValueError(f"turn {number} has no answer: only the last question of an input is answered")
    if not question_text(last["question"]).strip():
        raise ValueError("the question is empty")
    files = [image if isinstance(image, Image.Image) else image_path(folder, str(image)) for image in images]
    return InferenceInput(index, sample, files)


def is_annotation_file(inputs: object) -> bool:
    """Whether the inputs are the path of an annotation file."""
    return isinstance(inputs, (str, Path)) and Path(inputs).suffix.lower() in ANNOTATION_SUFFIXES
