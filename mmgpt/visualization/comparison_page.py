"""HTML page that compares two evaluations: scores, differing settings, wins and losses with their images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mmgpt.visualization.answer_sheet import SMALL
from mmgpt.visualization.html import write_html

MAX_SIDE = 320


class Case(NamedTuple):
    """A sample whose two answers have different scores.

    Attributes:
        origin: dataset and id of the sample.
        expected: the reference answers.
        answers, scores: of the first and of the second evaluation.
    """

    origin: str
    question: str
    expected: str
    answers: tuple[str, str]
    scores: tuple[float, float]
    images: list[Image.Image]


class Comparison(NamedTuple):
    """Content of the page.

    Attributes:
        names: names of the two evaluations.
        about: descriptions of them, as name -> value.
        overall: statistics of all samples (see mmgpt.evaluation.comparison.Change).
        tables: heading -> name of a group -> its statistics.
        differing: name of a setting -> its values in both.
        wins, losses: samples with a higher and with a lower score in the second evaluation, or some of them.
    """

    names: tuple[str, str]
    about: Mapping[str, object]
    overall: tuple
    tables: Mapping[str, Mapping[str, tuple]]
    differing: Mapping[str, tuple]
    wins: Sequence[Case]
    losses: Sequence[Case]


def write_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write the page, a self-contained HTML file, and return its path; missing folders are created."""
    wins, losses = (
        [case._replace(images=[reduced(image) for image in case.images]) for case in cases]
        for cases in (comparison.wins, comparison.losses)
    )
    title = f"{comparison.names[1]} against {comparison.names[0]}"
    values = {**comparison._asdict(), "wins": wins, "losses": losses, "title": title, "small": SMALL}
    return write_html("comparison_page.html", path, values)


def reduced(image: Image.Image) -> Image.Image:
    """Thumbnail of an image, with sides of at most MAX_SIDE pixels; a smaller image is returned unchanged."""
    if max(image.size) <= MAX_SIDE:
        return image
    image = image.copy()
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return image
