"""Cards of answers with their images: an HTML page of them, or a sheet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmgpt.visualization.answer_sheet import SMALL, sheet_pixels, side_by_side
from mmgpt.visualization.html import write_html


class Card(NamedTuple):
    """An answer, its question and its images.

    Attributes:
        name: name of the input.
        images: its images, as thumbnails.
        history: pairs of question and answer of the earlier turns.
        question: the last question.
        prediction: the answer to it.
        expected: the reference answer, or None.
    """

    name: str
    images: list[Image.Image]
    history: list[tuple[str, str]]
    question: str
    prediction: str
    expected: str | None = None


def draw_cards(cards: Sequence[Card]) -> np.ndarray:
    """A sheet of at least one card, uint8 (H, W, 3), without the history."""
    return sheet_pixels(
        [
            dict(
                image=side_by_side(card.images),
                question=card.question,
                prediction=card.prediction,
                dataset=card.name,
                answer=card.expected,
                correct=None,
            )
            for card in cards
        ]
    )


def write_answers(cards: Sequence[Card], about: Mapping[str, object], path: str | Path) -> Path:
    """Write a page of cards and return its path; missing folders are created.

    Args:
        about: description of the model, as name -> value.
    """
    return write_html("answers_page.html", path, dict(title="Answers", about=about, cards=cards, small=SMALL))
