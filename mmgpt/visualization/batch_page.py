"""HTML page of batches, self-contained: all tokens, the supervised ones in color, and all images."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmgpt.datasets.inspection.views import Row, Sample
from mmgpt.visualization.html import write_html


class Batch(NamedTuple):
    """A batch: its `number` in the epoch, the rows to show, and the number of all its rows (`size`)."""

    number: int
    rows: list[Row]
    size: int


class Counts(NamedTuple):
    """Counts over some rows; `positions` are tokens and padding."""

    rows: int
    samples: int
    images: int
    tokens: int
    supervised: int
    positions: int

    @property
    def supervised_share(self) -> float:
        """Share of the tokens that are supervised."""
        return self.supervised / self.tokens if self.tokens else 0.0

    @property
    def padding_share(self) -> float:
        """Share of the positions that are padding."""
        return 1 - self.tokens / self.positions if self.positions else 0.0


def count(rows: Iterable[Row]) -> Counts:
    """The counts of some rows."""
    rows = list(rows)
    samples = [sample for row in rows for sample in row.samples]
    images, tokens = sum(len(sample.shown_images) for sample in samples), sum(row.tokens for row in rows)
    positions = tokens + sum(row.padding for row in rows)
    return Counts(len(rows), len(samples), images, tokens, sum(row.supervised for row in rows), positions)


def by_dataset(samples: Sequence[Sample]) -> dict[tuple[str, str], Counts]:
    """The counts of each dataset's samples without padding, by (source, name of the dataset)."""
    names = sorted(
        {(sample.source, sample.dataset) for sample in samples}, key=lambda name: (name[0] != "visual", name)
    )
    return {name: count(Row(0, [s]) for s in samples if (s.source, s.dataset) == name) for name in names}


def write_page(batches: Sequence[Batch], title: str, about: Mapping[str, object], path: str | Path) -> Path:
    """Write an HTML page of batches and return its path; missing folders are created.

    Args:
        batches: the batches, in order.
        title: title of the page.
        about: where the batches come from, as name -> value.
        path: the HTML file.

    Raises:
        ValueError: there is no row.
    """
    rows = [row for batch in batches for row in batch.rows]
    if not rows:
        raise ValueError(f"{path}: no rows to show")
    datasets = by_dataset([sample for row in rows for sample in row.samples])
    values = dict(batches=batches, title=title, about=about, figures=count(rows), datasets=datasets, count=count)
    return write_html("batch_page.html", path, values)
