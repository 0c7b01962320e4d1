"""Annotation files: JSON and JSON lines, to records."""

import codecs
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from mmgpt.registry import PARSERS

from .conversation import check_sample

LIST_KEYS = ("annotations", "questions", "data", "images")
ID_KEYS = ("id", "question_id", "image_id", "identifier", "pairID")


class NotFinite(ValueError):
    """A number that JSON does not have."""


def read_records(path: str | Path, questions: str | Path | None = None) -> Iterator[dict]:
    """The records of an annotation file, those of a `.jsonl` one read as they are asked for.

    JSON lines (blank ones are passed over; NLVR's end in .json), a JSON list, an object with the list under one of
    LIST_KEYS, or an object of records by id (OCR-VQA, GQA), whose key becomes the record's `id`. What an object says in
    words of all of its list (VQAv2: `data_subtype`) is added to each record. One with `images` and their `annotations`
    (COCO's layout, NoCaps) gives a record for each image, with the list of its own `annotations`.

    Args:
        path: of the file.
        questions: a second file, with the questions that `path` annotates (VQAv2, OK-VQA): each record gets the keys
            of the one there that has its `question_id`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not JSON (names the line), holds NaN or Infinity, which JSON has not (RFC 8259, section 6;
            names record and key), is of another shape, or holds no record; or a record has no
            `question_id`, or one that is not among the questions.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {str(path)!r}")
    empty = True
    for record in _joined(_content(path), path, questions) if questions else _content(path):
        empty = False
        yield record
    if empty:
        raise ValueError(f"{path}: the annotation file holds no record")


def read_json(path: Path):
    """The content of a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not JSON (names the line), or holds NaN or Infinity (names the key).
    """
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {str(path)!r}")
    with _named(path):
        return _decoded(path.read_text(encoding="utf-8-sig"))


def has_mark(path: str | Path) -> bool:
    """Whether a file begins with UTF-8's byte order mark, which JSON files must not have (RFC 8259, section 8.1)."""
    with open(path, "rb") as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def expecting(parse: Callable[[dict], dict | None], values: Mapping[str, str]) -> Callable[[dict], dict | None]:
    """A parser that refuses records of another split: each of some keys must match a regular expression as a whole."""
    return partial(_parse_expected, parse, dict(values)) if values else parse


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
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        # These come from within a parser, and say little without their name.
        raise ValueError(f"{type(error).__name__}: {error}") from error


def record_id(record) -> tuple[str, object] | None:
    """The key and the value of what a record is known by, if it has such a key."""
    found = [(key, record[key]) for key in ID_KEYS if isinstance(record, dict) and record.get(key) is not None]
    return found[0] if found else None


def record_name(path: str | Path, number: int, record) -> str:
    """File, position and, where there is one, id of a record, for messages."""
    known = record_id(record)
    return f"{path}, record {number}" + (f" ({known[0]} {known[1]!r})" if known else "")


def _parse_expected(parse: Callable[[dict], dict | None], values: dict[str, str], record: dict) -> dict | None:
    for key, pattern in values.items():
        if not re.fullmatch(pattern, str(record.get(key))):
            raise ValueError(
                f"{key} is {record.get(key)!r}, but {pattern!r} is expected: is this the file of another split?"
            )
    return parse(record)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Within it, what is wrong with JSON is told with its file."""
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, NotFinite) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error


def _content(path: Path) -> Iterator:
    with _named(path):
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8-sig") as file:
                yield from _lines(file)
        else:
            yield from _whole(path.read_text(encoding="utf-8-sig"), path)


def _whole(text: str, path: Path) -> Iterable:
    try:
        content = _decoded(text) if text and not text.isspace() else []
    except json.JSONDecodeError as error:
        # A whole value on the first line, and another behind it: JSON lines under the name of JSON.
        if error.msg == "Extra data" and "\n" not in text[: error.pos].strip():
            # Not splitlines(): it also cuts at characters that may stand in a JSON string, such as U+2028.
            return _lines(text.split("\n"))
        raise
    if isinstance(content, dict):
        content = _listed(content, path)
    if not isinstance(content, list):
        raise ValueError(f"{path}: expected a list of records, got {type(content).__name__}")
    return content


def _decoded(text: str, record: int | None = None):
    """A JSON value; NotFinite when a number in it is none. `record` is its position, where it is one of several."""
    content = json.loads(text)
    # The names may stand in a string, too.
    if any(name in text for name in ("NaN", "Infinity")):
        for name, place in _not_finite(content):
            if record is None and isinstance(content, list):
                record, *place = place
            where = "" if record is None else f"record {record}, "
            raise NotFinite(f"{name} in {where}key {'.'.join(place)!r}")
    return content


def _not_finite(value, place: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The names and the places, as keys and positions, of NaN and infinities within a value."""
    if isinstance(value, float) and not math.isfinite(value):
        yield "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity", place
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_finite(item, (*place, str(key)))


def _joined(records: Iterable, path: Path, questions: str | Path) -> Iterator[dict]:
    asked = {_question_id(questions, i, record): record for i, record in enumerate(read_records(questions))}
    for number, record in enumerate(records):
        key = _question_id(path, number, record)
        if key not in asked:
            raise ValueError(f"{record_name(path, number, record)}: no such question_id in {questions}")
        yield {**asked[key], **{name: value for name, value in record.items() if value is not None}}


def _question_id(path: str | Path, number: int, record) -> str | int:
    if not isinstance(record, dict) or not isinstance(record.get("question_id"), (str, int)):
        raise ValueError(f"{record_name(path, number, record)}: no key 'question_id' (a string or an integer)")
    return record["question_id"]


def _lines(lines: Iterable[str]) -> Iterator:
    record = 0
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _decoded(line, record)
                record += 1
            except json.JSONDecodeError as error:
                raise json.JSONDecodeError(f"line {number}: {error.msg}", line, error.pos) from error
            except RecursionError as error:
                raise RecursionError(f"line {number}: nested too deeply") from error


def _listed(content: dict, path: Path) -> list[dict]:
    if isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list):
        return _by_image(content["images"], content["annotations"], path)
    key = next((key for key in LIST_KEYS if key in content), None)
    if key is None:
        return _by_id(content, path)
    shared = {name: value for name, value in content.items() if isinstance(value, str)}
    if not shared or not isinstance(content[key], list):
        return content[key]
    return [{**shared, **record} if isinstance(record, dict) else record for record in content[key]]


def _by_image(images: list[dict], annotations: list[dict], path: Path) -> list[dict]:
    own = {_integer(path, f"image {i}", image, "id"): [] for i, image in enumerate(images)}
    for i, annotation in enumerate(annotations):
        image = _integer(path, f"annotation {i}", annotation, "image_id")
        if image not in own:
            raise ValueError(f"{path}, annotation {i}: its image_id {image} is no image's id")
        own[image].append(annotation)
    return [{**image, "annotations": own[image["id"]]} for image in images]


def _integer(path: Path, place: str, item, key: str) -> int:
    if not isinstance(item, dict) or not isinstance(item.get(key), int):
        raise ValueError(f"{path}, {place}: no key {key!r} (an integer)")
    return item[key]


def _by_id(content: dict, path: Path) -> list[dict]:
    if not all(isinstance(record, dict) for record in content.values()):
        lists = " or ".join(map(repr, LIST_KEYS))
        raise ValueError(f"{path}: an object must hold {lists}, or records by id; keys: {list(content)!s:.80}")
    return [{"id": key, **record} for key, record in content.items()]
