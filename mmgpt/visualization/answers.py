"""Answers with their pictures, without a judgement: a sheet, and a page that needs no other file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmgpt.visualization.html import write_html
from mmgpt.visualization.sheet import SMALL, sheet_pixels, side_by_side


class Card(NamedTuple):
    """An answer as it is shown.

    Attributes:
        name: of the input.
        images: its pictures, of the size of a thumbnail.
        said: the turns before, question and answer each.
        question: the last one.
        prediction: its answer.
        expected: the answer that was expected; None where none is known.
    """

    name: str
    images: list[Image.Image]
    said: list[tuple[str, str]]
    question: str
    prediction: str
    expected: str | None = None


def draw_cards(cards: Sequence[Card]) -> np.ndarray:
    """A sheet of at least one card, uint8 (H, W, 3); of a dialogue it shows the last turn."""
    return sheet_pixels([_sheet_row(card) for card in cards])


def write_answers(cards: Sequence[Card], about: Mapping[str, object], path: str | Path) -> Path:
    """Write the page and return its path; folders are made. `about` is what answered, as name -> value."""
    return write_html("answers.html", path, dict(title="Answers", about=about, cards=cards, small=SMALL))


def _sheet_row(card: Card) -> dict:
    row = dict(image=side_by_side(card.images), question=card.question, prediction=card.prediction, dataset=card.name)
    return {**row, "answer": card.expected, "correct": None}
