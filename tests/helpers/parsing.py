"""Reading the small files of tests/data with a parser."""

import copy
from pathlib import Path

from mmgpt.datasets.conversation import check_sample
from mmgpt.datasets.records import find_parser, read_records

DATA = Path(__file__).parents[1] / "data"
IMAGE = {"type": "image"}
COCO_2014 = "train2014/COCO_train2014_{image_id:012d}.jpg"


def parse(parser, file, questions=None):
    """All samples of a file, checked; also that a parser leaves its record alone."""
    read = find_parser(parser)
    samples = []
    for record in read_records(DATA / file, questions and DATA / questions):
        before = copy.deepcopy(record)
        sample = read(record)
        assert record == before
        samples.append(sample and check_sample(sample))
    return samples


def texts(question):
    """The parts of a question as texts, images as 'IMAGE'."""
    return [part.get("text", "IMAGE") for part in question]
