"""Parsers: pure functions from a record of an annotation format to a sample (see `datasets.conversation`)."""

from .caption import coco_caption, karpathy, minigpt4, nocaps
from .chat_messages import messages, the_cauldron
from .choice import aokvqa, scienceqa
from .dialogue import baize, llava, sharegpt
from .schema import conversation
from .statement import nlvr, nlvr2, snli_ve
from .text import alpaca, dolly
from .vqa import ocr_vqa, pope, vqa

__all__ = [
    "alpaca",
    "aokvqa",
    "baize",
    "coco_caption",
    "conversation",
    "dolly",
    "karpathy",
    "llava",
    "messages",
    "minigpt4",
    "nlvr",
    "nlvr2",
    "nocaps",
    "ocr_vqa",
    "pope",
    "scienceqa",
    "sharegpt",
    "snli_ve",
    "the_cauldron",
    "vqa",
]
