"""Helpers of the tests of tools/dataset_converters/convert.py."""

from pathlib import Path

from PIL import Image

from mmgpt.datasets.records import find_parser, read_records
from tests.helpers.corrupt_data import encoded

ROOT = Path(__file__).parents[2]
CONVERTERS = ROOT / "tools" / "dataset_converters"


def samples(path):
    """The samples in a file of our schema."""
    return [find_parser("conversation")(record) for record in read_records(path)]


def sample(question, answer, *images, name="", **more):
    return {"id": name, "images": list(images), "turns": [{"question": question, "answer": answer, **more}]}


def write(path, text, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, **options)
    return path


def png_bytes(colour="red"):
    return encoded(Image.new("RGB", (20, 30), colour), "PNG")
