"""Files that a parser of ours reads."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mmgpt.datasets.records import find_parser, parse_record, read_records, record_location

from .rows import at


def read_parsed(
    source: Path, parser: str, options: Mapping[str, str], questions: Path | None
) -> Iterator[tuple[str, dict]]:
    """A file that one of the parsers reads, e.g. llava, sharegpt or vqa: to merge files, or to edit one.

    Records that the parser passes over are left out.
    """
    parse = find_parser({"type": parser, **options})
    for number, record in enumerate(read_records(source, questions)):
        place = str(record_location(source, number, record))
        with at(place):
            sample = parse_record(parse, number, record)
        if sample is not None:
            yield place, {key: sample[key] for key in ("id", "images", "turns")}
