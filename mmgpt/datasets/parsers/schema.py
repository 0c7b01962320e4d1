"""Parser of records in the schema of samples (see `datasets.conversation`), for custom data."""

from collections.abc import Collection

from mmgpt.datasets.conversation import LIST_KEYS, TEXT_KEYS
from mmgpt.registry import PARSERS

from .fields import add_system, field, has, name_of, text_list

SAMPLE_KEYS = ("id", "images", "turns", "system")
TURN_KEYS = ("question", *TEXT_KEYS, *LIST_KEYS)


@PARSERS.register_module(name="conversation")
def conversation(record: dict) -> dict:
    """`{'turns': [{'question': ..., 'answer': ...}], 'images': [path, ...], ...}`; see docs/data.md.

    Only the turns are required. An unknown key is an error: a misspelt one would be ignored without notice.
    """
    _check_keys(record, SAMPLE_KEYS, "a record")
    turns = field(record, "turns", list)
    for turn in turns:
        if not isinstance(turn, dict):
            raise ValueError(f"a turn must be an object, got {turn!r:.80}")
        _check_keys(turn, TURN_KEYS, "a turn")
        field(turn, "question", (str, list))
    turns = [{key: value for key, value in turn.items() if value is not None} for turn in turns]
    images = text_list(record, "images") if has(record, "images") else []
    return add_system({"id": name_of(record, "id"), "images": images, "turns": turns}, record)


def _check_keys(keys: Collection[str], choices: Collection[str], name: str) -> None:
    unknown = [key for key in keys if key not in choices]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}: {name} has {', '.join(choices)}")
