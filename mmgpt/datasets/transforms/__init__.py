"""Transforms of a sample: images, turns, prompt, tokens. Each is a callable from a dict of results to a dict."""

from .candidates import AddCandidates
from .examples import AddExamples
from .features import LoadFeatures
from .images import EachImage, PrepareImages
from .load_images import LoadImages
from .prompt import FormatPrompt
from .tokens import PackInputs, PromptTooLong, TokenizeSegments
from .turns import (
    AddQuestion,
    AskQuestion,
    GiveReason,
    JoinAnswers,
    OfferOptions,
    PickAnswer,
    PickImage,
    PickTurn,
    SeparateTurns,
)

__all__ = [
    "AddCandidates",
    "AddExamples",
    "AddQuestion",
    "AskQuestion",
    "EachImage",
    "FormatPrompt",
    "GiveReason",
    "JoinAnswers",
    "LoadFeatures",
    "LoadImages",
    "OfferOptions",
    "PackInputs",
    "PickAnswer",
    "PickImage",
    "PickTurn",
    "PrepareImages",
    "PromptTooLong",
    "SeparateTurns",
    "TokenizeSegments",
]
