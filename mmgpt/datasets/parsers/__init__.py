"""Annotation formats: a pure function each, from a record of the file to a sample (see `datasets.conversation`)."""

from .caption import coco_caption, minigpt4
from .choice import aokvqa
from .dialogue import baize, llava
from .text import alpaca, dolly
from .vqa import ocr_vqa

__all__ = ["alpaca", "aokvqa", "baize", "coco_caption", "dolly", "llava", "minigpt4", "ocr_vqa"]
