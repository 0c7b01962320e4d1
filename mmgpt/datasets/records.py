"""Annotation files in JSON or JSON lines, read as records, and parsers that make samples of them."""

import codecs
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from mmgpt.registry import PARSERS
from mmgpt.utils.errors import SampleError, SampleLocation, located

from .conversation import check_sample
from .shards.images import is_shard_image

LIST_KEYS = ("annotations", "questions", "data", "images")
IMAGE_KEYS = ("image", "images")
ID_KEYS = ("id", "question_id", "image_id", "identifier", "pairID")


def read_records(path: str | Path, questions: str | Path | None = None) -> Iterator[dict]:
    """Records of an annotation file; those of a `.jsonl` file are read one by one.

    JSON lines (blank lines are skipped; NLVR's files end in .json), a JSON list, an object with the list under one of
    LIST_KEYS, or an object of records by id (OCR-VQA, GQA), whose key becomes the record's `id`. Strings beside the
    list (VQAv2's `data_subtype`) are added to each record. An object with `images` and `annotations` (COCO's layout,
    NoCaps) gives one record for each image, with the list of its `annotations`. An object with a list of `messages`,
    which the chat page saves, is one record.

    Args:
        path: annotation file.
        questions: second file, with the questions that `path` annotates (VQAv2, OK-VQA): each record gets the keys of
            the question with its `question_id`.

    Raises:
        FileNotFoundError: a file does not exist.
        SampleError: the file is not JSON (names the line), holds NaN or Infinity, which JSON does not have (RFC 8259,
            section 6; names record and key), has another shape, or holds no record; or a record's `question_id` is
            absent, or not among the questions.
    """
    path, number, by_id = Path(path), -1, {}
    if questions:
        by_id = {_question_id(questions, i, question): question for i, question in enumerate(read_records(questions))}
    for number, record in enumerate(_file_records(path)):
        if questions:
            key = _question_id(path, number, record)
            if key not in by_id:
                raise SampleError(f"no such question_id in {questions}", record_location(path, number, record))
            record = {**by_id[key], **{name: value for name, value in record.items() if value is not None}}
        yield record
    if number < 0:
        raise SampleError("the annotation file holds no record", SampleLocation(file=str(path)))


def read_json(path: Path):
    """Content of a JSON file.

    Raises:
        FileNotFoundError: the file does not exist.
        SampleError: the file is not JSON (names the line), or holds NaN or Infinity (names the key).
    """
    _check_exists(path)
    with _json_errors(path):
        return decode_json(path.read_text(encoding="utf-8-sig"))


def has_byte_order_mark(path: str | Path) -> bool:
    """Whether a file begins with UTF-8's byte order mark, which JSON files must not have (RFC 8259, section 8.1)."""
    with open(path, "rb") as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def expecting(parse: Callable[[dict], dict | None], values: Mapping[str, str]) -> Callable[[dict], dict | None]:
    """Parser that refuses records of another split: each key's value must match a regular expression fully."""
    return partial(_parse_expected, parse, dict(values)) if values else parse


def find_parser(parser: str | dict) -> Callable[[dict], dict | None]:
    """Parser by name, or by `dict(type=name, **options)`.

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
    """Sample that a parser makes of a record, checked, with an `id` and as `record` its number; None if it is skipped.

    An error in the place of a record, which shards give for a broken one, is raised.

    Raises:
        SampleError: the record does not have the format of the parser; gives the reason, and leaves the location to
            the caller.
    """
    if isinstance(record, SampleError):
        raise record
    try:
        if not isinstance(record, dict):
            raise ValueError(f"a record must be an object, got {record!r:.80}")
        sample = parse(record)
        if sample is None:
            return None
        if not check_sample(sample)["images"]:
            _refuse_unread_images(record)
        return dict(sample, id=sample["id"] or str(number), record=number)
    except ValueError as error:
        raise SampleError(str(error)) from error
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        # Parsers raise these for records of another format, and their messages say little without the type.
        raise SampleError(f"{type(error).__name__}: {error}") from error


def record_id(record) -> str | None:
    """Value of the first of ID_KEYS that a record has, as text."""
    if not isinstance(record, dict):
        return None
    return next((str(record[key]) for key in ID_KEYS if record.get(key) is not None), None)


def record_location(path: str | Path, number: int, record) -> SampleLocation:
    """Location of a record: file, number and, where the record has one, id."""
    return SampleLocation(file=str(path), record=number, id=record_id(record))


def _parse_expected(parse: Callable[[dict], dict | None], values: dict[str, str], record: dict) -> dict | None:
    for key, pattern in values.items():
        if not re.fullmatch(pattern, str(record.get(key))):
            raise ValueError(
                f"{key} is {record.get(key)!r}, but {pattern!r} is expected: is this the file of another split?"
            )
    return parse(record)


def _refuse_unread_images(record: dict) -> None:
    """Raises a ValueError for images of a shard under a key from which no parser reads them."""
    for key, value in record.items():
        images = value if isinstance(value, list) else [value]
        if key not in IMAGE_KEYS and any(isinstance(image, str) and is_shard_image(image) for image in images):
            raise ValueError(f"column {key!r} holds images that are not read: name it one of {', '.join(IMAGE_KEYS)}")


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {str(path)!r}")


@contextmanager
def _json_errors(path: Path) -> Iterator[None]:
    """Context manager that turns errors about JSON into a SampleError, and adds the file to each."""
    with located(SampleLocation(file=str(path))):
        try:
            yield
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SampleError(f"not valid JSON: {error}") from error


def _file_records(path: Path) -> Iterator:
    """Records of one file, before any check of them."""
    _check_exists(path)
    with _json_errors(path):
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8-sig") as file:
                yield from _line_records(file)
            return
        text = path.read_text(encoding="utf-8-sig")
        try:
            content = decode_json(text) if text and not text.isspace() else []
        except json.JSONDecodeError as error:
            # JSON lines under the name of JSON have a whole value on the first line, and another one after it.
            if error.msg != "Extra data" or "\n" in text[: error.pos].strip():
                raise
            # splitlines() would also cut at characters that a JSON string may hold, such as U+2028.
            yield from _line_records(text.split("\n"))
            return
        if isinstance(content, dict):
            content = _object_records(content)
        if not isinstance(content, list):
            raise SampleError(f"expected a list of records, got {type(content).__name__}")
        yield from content


def _line_records(lines: Iterable[str]) -> Iterator:
    """Records of JSON lines; an error names the line."""
    record = 0
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield decode_json(line, record)
                record += 1
            except json.JSONDecodeError as error:
                raise json.JSONDecodeError(f"line {number}: {error.msg}", line, error.pos) from error
            except RecursionError as error:
                raise RecursionError(f"line {number}: nested too deeply") from error


def decode_json(text: str, record: int | None = None):
    """JSON value of a text; `record` is its number where the text is one of several lines.

    Raises:
        SampleError: a number is NaN or infinite.
    """
    content = json.loads(text)
    # A string may contain these names, too, so the parsed values are searched.
    if any(name in text for name in ("NaN", "Infinity")):
        for name, keys in _non_finite_numbers(content):
            if record is None and isinstance(content, list):
                record, *keys = keys
            location = SampleLocation(record=None if record is None else int(record))
            raise SampleError(f"not valid JSON: {name} in key {'.'.join(keys)!r}", location)
    return content


def _non_finite_numbers(value, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name of each NaN or infinity in a value, and the keys and indices that lead to it."""
    if isinstance(value, float) and not math.isfinite(value):
        yield "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity", keys
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _non_finite_numbers(item, (*keys, str(key)))


def _object_records(content: dict) -> list:
    """Records of a file whose content is an object."""
    if isinstance(content.get("messages"), list):
        return [content]
    if isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list):
        images = content["images"]
        by_image = {_integer(f"image {i}", image, "id"): [] for i, image in enumerate(images)}
        for i, annotation in enumerate(content["annotations"]):
            image = _integer(f"annotation {i}", annotation, "image_id")
            if image not in by_image:
                raise SampleError(f"annotation {i}: no image has its image_id {image}")
            by_image[image].append(annotation)
        return [{**image, "annotations": by_image[image["id"]]} for image in images]
    key = next((key for key in LIST_KEYS if key in content), None)
    if key is None:
        if not all(isinstance(record, dict) for record in content.values()):
            lists = " or ".join(map(repr, LIST_KEYS))
            raise SampleError(f"an object must hold {lists}, or records by id; keys: {list(content)!s:.80}")
        return [{"id": key, **record} for key, record in content.items()]
    strings = {name: value for name, value in content.items() if isinstance(value, str)}
    if not strings or not isinstance(content[key], list):
        return content[key]
    return [{**strings, **record} if isinstance(record, dict) else record for record in content[key]]


def _integer(name: str, item, key: str) -> int:
    if not isinstance(item, dict) or not isinstance(item.get(key), int):
        raise SampleError(f"{name}: no key {key!r} (an integer)")
    return item[key]


def _question_id(path: str | Path, number: int, record) -> str | int:
    """The `question_id` of a record. Raises a SampleError for a record without one."""
    if not isinstance(record, dict) or not isinstance(record.get("question_id"), (str, int)):
        location = record_location(path, number, record)
        raise SampleError("no key 'question_id' (a string or an integer)", location)
    return record["question_id"]
