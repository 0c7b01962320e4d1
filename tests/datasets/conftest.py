"""Small datasets made for a test: images, annotation files, configs."""

import json
import logging

import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

from mmgpt.registry import DATASETS


@pytest.fixture
def make_images(tmp_path):
    """A function that writes plain images, each of its own colour, and returns their folder."""

    def make(*names, size=(40, 32)):
        for number, name in enumerate(names):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            colour = np.full((size[1], size[0], 3), 40 * number + 20, np.uint8)
            Image.fromarray(colour).save(path)
        return tmp_path / "images"

    return make


@pytest.fixture
def steps(tiny_llama):
    """A function that gives the last transforms of a pipeline; with size, images are loaded too."""

    def make(size=None, template="short", max_length=400, open_last=False):
        images = [dict(type="LoadImages"), dict(type="PrepareImages", size=size, mean=[0.5] * 3, std=[0.5] * 3)]
        text = [
            dict(type="FormatPrompt", template=template, open_last=open_last),
            dict(type="TokenizeSegments", tokenizer=tiny_llama, max_length=max_length),
            dict(type="PackInputs"),
        ]
        return (images if size else []) + text

    return make


@pytest.fixture
def dolly_config(tmp_path, steps):
    """A function that writes answers (and questions) in Dolly's layout and gives the dataset's config."""

    def make(answers, name="dolly", max_length=400, **more):
        path = tmp_path / f"{name}.jsonl"
        records = [{"instruction": f"what is {i}", "context": "", "response": a} for i, a in enumerate(answers)]
        path.write_text("\n".join(json.dumps(record) for record in records))
        config = dict(type="InstructionDataset", parser="dolly", source="language", name=name, ann_file=str(path))
        return config | dict(pipeline=steps(max_length=max_length)) | more

    return make


@pytest.fixture
def caption_config(tmp_path, make_images, steps):
    """A function that writes images and one caption each in COCO Caption's layout and gives the dataset's config."""

    def make(count, name="captions", size=16, **more):
        names = [f"{name}_{i}.png" for i in range(count)]
        folder = make_images(*names)
        path = tmp_path / f"{name}.json"
        records = [{"image": image, "caption": ["a red circle", "a circle"], "image_id": image} for image in names]
        path.write_text(json.dumps(records))
        config = dict(type="InstructionDataset", parser="coco_caption", name=name, ann_file=str(path))
        pipeline = [dict(type="PickAnswer"), dict(type="AskQuestion", questions=["what is the", "what"])]
        return config | dict(data_prefix=dict(img=str(folder)), pipeline=pipeline + steps(size)) | more

    return make


@pytest.fixture
def build():
    """A function that builds a dataset from its config."""
    return DATASETS.build


class Messages(logging.Handler):
    """Collects what is logged; MMEngine's logger does not pass its records on."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture
def logged():
    """What is logged meanwhile, as a list that grows."""
    handler, logger = Messages(), MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)
