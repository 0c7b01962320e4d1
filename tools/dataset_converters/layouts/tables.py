"""Readers of tables: CSV files, and JSON lines with the same columns."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmgpt.datasets.records import read_records

from .rows import at, check_unused_images, find_columns, join_turns, row_sample, without_nulls

SEPARATORS = ",;\t"


def read_table(path: Path, overrides: Mapping[str, str]) -> Iterator[tuple[str, dict]]:
    """A table with a header line (.csv, .tsv): columns image, question, answer and, optionally, id, in any order.

    The cells are separated by commas, semicolons or tabs, whichever is most frequent in the header. Several images:
    several columns, or `a.jpg;b.jpg` in one. A row without an image is text only. With a column `conversation`, the
    rows with the same value there are the turns of one conversation, in which a repeated image occurs once.
    """
    conversations: dict[str, list[tuple[str, dict]]] = {}
    columns = None
    for location, row in _rows(path):
        if columns is None:
            with at(str(path)):
                columns = find_columns(list(row), overrides)
        with at(location):
            check_unused_images(row, columns, overrides)
            sample = row_sample(row, columns)
        name = "".join(row[key] for key in columns["conversation"])
        if name:
            conversations.setdefault(name, []).append((location, sample))
        else:
            yield location, sample
    for name, turns in conversations.items():
        locations, samples = zip(*turns, strict=True)
        sample = join_turns(samples)
        yield locations[0], dict(sample, id=sample["id"] or name)


def read_lines(path: Path, overrides: Mapping[str, str]) -> Iterator[tuple[str, dict]]:
    """JSON lines whose keys are the columns of a table; null counts as missing."""
    for number, record in enumerate(read_records(path)):
        with at(f"{path}, record {number}"):
            record = without_nulls(record)
            columns = find_columns(list(record), overrides)
            check_unused_images(record, columns, overrides)
            sample = row_sample(record, columns)
        yield f"{path}, record {number}", sample


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Location (rows are numbered as in a spreadsheet) and cells by column of each row."""
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
                if not cells:
                    continue
                if len(cells) != len(headings):
                    raise ValueError(
                        f"{path}, row {number}: {len(cells)} cells, but {len(headings)} headings: {', '.join(headings)}"
                    )
                yield f"{path}, row {number}", dict(zip(headings, cells, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}, after row {number}: {error} (expected is CSV in UTF-8)") from error
