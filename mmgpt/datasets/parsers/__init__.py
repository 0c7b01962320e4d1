"""Annotation formats: a pure function each, from a record of the file to a sample (see `datasets.conversation`)."""

from .caption import coco_caption, minigpt4
from .choice import aokvqa
from .dialogue import baize, llava, sharegpt
from .own import conversation
from .statement import nlvr, nlvr2, snli_ve
from .text import alpaca, dolly
from .vqa import ocr_vqa, vqa

__all__ = [
    "alpaca",
    "aokvqa",
    "baize",
    "coco_caption",
    "conversation",
    "dolly",
    "llava",
    "minigpt4",
    "nlvr",
    "nlvr2",
    "ocr_vqa",
    "sharegpt",
    "snli_ve",
    "vqa",
]
