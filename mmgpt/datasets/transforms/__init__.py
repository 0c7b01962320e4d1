"""Transforms of a sample: images, turns (all randomness), prompt (templates as data), tokens."""

from .images import LoadImages, PrepareImages
from .prompt import FormatPrompt
from .tokens import PackInputs, TokenizeSegments
from .turns import AskQuestion, GiveReason, JoinAnswers, OfferOptions, PickAnswer, PickTurn

__all__ = [
    "AskQuestion",
    "FormatPrompt",
    "GiveReason",
    "JoinAnswers",
    "LoadImages",
    "OfferOptions",
    "PackInputs",
    "PickAnswer",
    "PickTurn",
    "PrepareImages",
    "TokenizeSegments",
]
