"""A page that sets two evaluations side by side: figures, what was set otherwise, wins and losses with pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mmgpt.visualization.html import write_html
from mmgpt.visualization.sheet import SMALL

SIDE = 320


class Case(NamedTuple):
    """A sample that one of the two answers better: where it is from, its pictures, both answers and their scores."""

    place: str
    question: str
    truth: str
    answers: tuple[str, str]
    scores: tuple[float, float]
    images: list[Image.Image]


class Comparison(NamedTuple):
    """What the page shows.

    Attributes:
        names: of the two evaluations.
        about: what they are, as name -> value.
        overall: figures of all samples (see mmgpt.evaluation.comparison.Change).
        tables: heading -> name of a group -> its figures.
        differing: name of a setting -> its values in both.
        wins, losses: samples that the second one answers better, and worse; all of them or some.
    """

    names: tuple[str, str]
    about: Mapping[str, object]
    overall: tuple
    tables: Mapping[str, Mapping[str, tuple]]
    differing: Mapping[str, tuple]
    wins: Sequence[Case]
    losses: Sequence[Case]


def write_comparison(shown: Comparison, path: str | Path) -> Path:
    """Write the page, an HTML file that needs no other, and return its path; folders are made."""
    title = f"{shown.names[1]} against {shown.names[0]}"
    small = [[case._replace(images=[reduced(image) for image in case.images]) for case in part] for part in shown[-2:]]
    shown = shown._replace(wins=small[0], losses=small[1])
    return write_html("comparison.html", path, {"title": title, "small": SMALL, **shown._asdict()})


def reduced(image: Image.Image) -> Image.Image:
    """An image that fits into a square of SIDE pixels; one that does is left as it is."""
    if max(image.size) <= SIDE:
        return image
    image = image.copy()
    image.thumbnail((SIDE, SIDE))
    return image
