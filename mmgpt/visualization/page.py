"""A page of batches, in one file that needs no other: every token, coloured where it is learned, and every picture."""

import unicodedata
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from mmgpt.datasets.views import Row, Sample

SIGNS = {"\n": "⏎", "\t": "⇥"}


class Batch(NamedTuple):
    """A batch to be shown: its `number` in the epoch, all its rows or those wanted, and how many it has in all."""

    number: int
    rows: list[Row]
    of: int


class Figures(NamedTuple):
    """Counts over some rows; `places` are tokens with padding."""

    rows: int
    samples: int
    images: int
    tokens: int
    learned: int
    places: int

    @property
    def learned_share(self) -> float:
        """The part of the tokens that is learned."""
        return self.learned / self.tokens if self.tokens else 0.0

    @property
    def padding_share(self) -> float:
        """The part of the places that is padding."""
        return 1 - self.tokens / self.places if self.places else 0.0


def count(rows: Iterable[Row]) -> Figures:
    """The figures of some rows."""
    rows = list(rows)
    samples = [sample for row in rows for sample in row.samples]
    images, tokens = sum(len(sample.pictures) for sample in samples), sum(row.tokens for row in rows)
    places = tokens + sum(row.padding for row in rows)
    return Figures(len(rows), len(samples), images, tokens, sum(row.learned for row in rows), places)


def by_dataset(samples: Sequence[Sample]) -> dict[tuple[str, str], Figures]:
    """The figures of each dataset's samples without padding, by (source, name of the dataset)."""
    names = sorted(
        {(sample.source, sample.dataset) for sample in samples}, key=lambda name: (name[0] != "visual", name)
    )
    parts = {name: [s for s in samples if (s.source, s.dataset) == name] for name in names}
    return {name: count(Row(0, [sample]) for sample in part) for name, part in parts.items()}


def write_page(batches: Sequence[Batch], title: str, about: Mapping[str, object], path: str | Path) -> Path:
    """Write an HTML page of batches and return its path; folders are made.

    Args:
        batches: what is shown, in order.
        title: above the page.
        about: what the batches are of, as name -> value.
        path: the HTML file.

    Raises:
        ValueError: there is no row.
    """
    rows = [row for batch in batches for row in batch.rows]
    if not rows:
        raise ValueError(f"{path}: no rows to show")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(visible=visible, uri=data_uri, size=enlarged)
    datasets = by_dataset([sample for row in rows for sample in row.samples])
    template = environment.get_template("page.html")
    text = template.render(
        batches=batches, title=title, about=about, figures=count(rows), datasets=datasets, count=count
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def visible(text: object) -> Markup:
    """Text as HTML: a sign before each line break and tab, the code of what would be unseen or act on the text around.

    Signs are set apart by ``<i>``, so that they are not taken for text.
    """
    return Markup("").join(_visible(char) for char in str(text))


def data_uri(image: Image.Image) -> str:
    """An image as PNG within an address."""
    stream = BytesIO()
    image.save(stream, format="png")
    return f"data:image/png;base64,{b64encode(stream.getvalue()).decode()}"


def enlarged(image: Image.Image, side: int) -> tuple[int, int]:
    """Width and height of an image made as large as fits into a square, by a whole factor: its pixels stay squares."""
    factor = max(1, side // max(image.size))
    return image.width * factor, image.height * factor


def _visible(char: str) -> Markup:
    if char in SIGNS:
        return Markup(f"<i>{SIGNS[char]}</i>{char}")
    # Control and format characters (of the direction of text, zero width), lone surrogates, line separators.
    if unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"):
        return Markup(f"<i>U+{ord(char):04X}</i>")
    return escape(char)
