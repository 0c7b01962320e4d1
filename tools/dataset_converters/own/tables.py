"""Tables of texts: CSV files, and JSON lines of the same shape."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmgpt.datasets.records import read_records

from .rows import as_object, at, check_pictures, find_columns, joined, row_sample

SEPARATORS = ",;\t"


def read_table(path: Path, named: Mapping[str, str]) -> Iterator[tuple[str, dict]]:
    """A table with a line of headings (.csv, .tsv): columns image, question, answer and, if you like, id, in any order.

    Commas, semicolons or tabs separate its cells, whichever the first line has most of. Several images: several
    columns, or `a.jpg;b.jpg` in one. A row without one is text only. With a column `conversation`, the rows with the
    same value there are the turns of one conversation; an image that they repeat is shown once.
    """
    conversations: dict[str, list[tuple[str, dict]]] = {}
    columns = None
    for place, row in _rows(path):
        if columns is None:
            with at(str(path)):
                columns = find_columns(list(row), named)
        with at(place):
            check_pictures(row, columns, named)
            sample = row_sample(row, columns)
        name = "".join(row[key] for key in columns["conversation"])
        if name:
            conversations.setdefault(name, []).append((place, sample))
        else:
            yield place, sample
    for name, turns in conversations.items():
        places, samples = zip(*turns, strict=True)
        sample = joined(samples)
        yield places[0], dict(sample, id=sample["id"] or name)


def read_lines(path: Path, named: Mapping[str, str]) -> Iterator[tuple[str, dict]]:
    """JSON lines whose keys are the columns of a table."""
    for number, record in enumerate(read_records(path)):
        with at(f"{path}, record {number}"):
            columns = find_columns(list(as_object(record)), named)
            check_pictures(record, columns, named)
            sample = row_sample(record, columns)
        yield f"{path}, record {number}", sample


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Place (rows are counted as a spreadsheet does) and cells of each row."""
    number = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(SEPARATORS, key=first.count), strict=True)
            headings = [heading.strip() for heading in next(reader, [])]
            if len(set(headings)) < len(headings):
                raise ValueError(f"{path}: two columns of the same name: {', '.join(headings)}")
            for number, cells in enumerate(reader, start=2):
                place = f"{path}, row {number}"
                if cells:
                    yield place, _row(place, headings, cells)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}, after row {number}: {error} (expected is CSV in UTF-8)") from error


def _row(place: str, headings: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(headings):
        raise ValueError(f"{place}: {len(cells)} cells, but {len(headings)} headings: {', '.join(headings)}")
    return dict(zip(headings, cells, strict=True))
