"""Reader of files in the format of one of our parsers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mmgpt.datasets.parsers.schema import SAMPLE_KEYS
from mmgpt.datasets.records import find_parser, parse_record, read_records, record_location

from .rows import at


def read_parsed(
    source: Path, parser: str, options: Mapping[str, str], questions: Path | None
) -> Iterator[tuple[str, dict]]:
    """A file in the format of a parser, e.g. llava, sharegpt or vqa: to merge files, or to edit one.

    Records that the parser skips are left out.
    """
    parse = find_parser({"type": parser, **options})
    for number, record in enumerate(read_records(source, questions)):
        location = str(record_location(source, number, record))
        with at(location):
            sample = parse_record(parse, number, record)
        if sample is not None:
            yield location, {key: sample[key] for key in SAMPLE_KEYS if key in sample}
