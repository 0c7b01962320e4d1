"""Annotation files: JSON and JSON lines, to a list of records."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mmgpt.registry import PARSERS

from .conversation import check_sample

ID_KEYS = ("id", "question_id", "image_id")


def read_records(path: str | Path) -> list[dict]:
    """The records of an annotation file.

    JSON lines (blank ones are passed over), a JSON list, an object with the list under `annotations`, or an object of
    records by id (OCR-VQA), whose key becomes the record's `id`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not JSON (names the line), of another shape, or holds no record.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {str(path)!r}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = _lines(text) if path.suffix == ".jsonl" else json.loads(text if text.strip() else "[]")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if isinstance(content, dict):
        content = content["annotations"] if "annotations" in content else _by_id(content, path)
    if not isinstance(content, list):
        raise ValueError(f"{path}: expected a list of records, got {type(content).__name__}")
    if not content:
        raise ValueError(f"{path}: the annotation file holds no record")
    return content


def find_parser(parser: str | dict) -> Callable[[dict], dict | None]:
    """A parser by name, or by `dict(type=name, **options)`.

    Raises:
        ValueError: unknown name; names the choices.
    """
    options = {"type": parser} if isinstance(parser, str) else dict(parser)
    name = options.pop("type", None)
    PARSERS.import_from_location()
    if name not in PARSERS.module_dict:
        raise ValueError(f"unknown parser {name!r}: choose among {', '.join(sorted(PARSERS.module_dict))}")
    return partial(PARSERS.module_dict[name], **options) if options else PARSERS.module_dict[name]


def parse_record(parse: Callable[[dict], dict | None], number: int, record) -> dict | None:
    """What a parser makes of a record, checked, with `record` (its number) and an `id`; None when it is passed over.

    Raises:
        ValueError: it is no record of that format; says why, not where.
    """
    try:
        if not isinstance(record, dict):
            raise ValueError(f"a record must be an object, got {record!r:.80}")
        sample = parse(record)
        return None if sample is None else dict(check_sample(sample), id=sample["id"] or str(number), record=number)
    except (LookupError, TypeError, AttributeError) as error:
        # These come from within a parser, and say little without their name.
        raise ValueError(f"{type(error).__name__}: {error}") from error


def record_id(record) -> tuple[str, object] | None:
    """The key and the value of what a record is known by, if it has such a key."""
    found = [(key, record[key]) for key in ID_KEYS if isinstance(record, dict) and key in record]
    return found[0] if found else None


def record_name(path: str, number: int, record) -> str:
    """File, position and, where there is one, id of a record, for messages."""
    known = record_id(record)
    return f"{path}, record {number}" + (f" ({known[0]} {known[1]!r})" if known else "")


def _lines(text: str) -> list[dict]:
    records = []
    # Not splitlines(): it also cuts at characters that may stand in a JSON string, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise json.JSONDecodeError(f"line {number}: {error.msg}", line, error.pos) from error
    return records


def _by_id(content: dict, path: Path) -> list[dict]:
    if not all(isinstance(record, dict) for record in content.values()):
        raise ValueError(f"{path}: an object must hold 'annotations' or records by id; keys: {list(content)!s:.80}")
    return [{"id": key, **record} for key, record in content.items()]
