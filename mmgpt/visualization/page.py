"""A page of batches, in one file that needs no other: every token, coloured where it is learned, and every picture."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmgpt.datasets.inspection.views import Row, Sample
from mmgpt.visualization.html import write_html


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
    datasets = by_dataset([sample for row in rows for sample in row.samples])
    shown = dict(batches=batches, title=title, about=about, figures=count(rows), datasets=datasets, count=count)
    return write_html("page.html", path, shown)
