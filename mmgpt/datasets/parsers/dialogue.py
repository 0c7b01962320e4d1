"""Parsers of conversations: LLaVA and ShareGPT with images or without, Baize in text."""

import re
from collections.abc import Callable, Sequence

from mmgpt.datasets.conversation import IMAGE_CONTENT, question_contents, text_content
from mmgpt.registry import PARSERS

from .fields import add_system, field, image_list, name_of, refuse_images, refuse_other_media

MARK = "<image>"
# Marks at the start, text, marks at the end; whitespace next to the marks at both ends belongs to them.
ENDS = re.compile(rf"((?:{MARK}\s*)*)(.*?)((?:\s*{MARK})*)\Z", re.DOTALL)
# Other names of the roles, as in ShareGPT_V3_unfiltered_cleaned_split.json.
ROLE_NAMES = {"user": "human", "assistant": "gpt", "chatgpt": "gpt"}
BAIZE_ROLE = re.compile(r"\[\|(Human|AI)\|\]")


@PARSERS.register_module(name="llava")
def llava(record: dict) -> dict:
    """Record in the layout of LLaVA-Instruct-150K: `conversations` with alternating entries of human and gpt.

    `image` (or `images`) is a path or a list of paths. `<image>` in a human's text is the position of an image. LLaVA
    puts the mark before or after the question at random, with a line break between, which means the same: an image
    after the question moves before it. Inside the text it stays, and so do line breaks next to it.

    A question at the end without an answer is left out, unless it is the only one: then its turn has an empty answer.
    """
    return _sample(record, image_list(record), _turns(field(record, "conversations", list), marked_question))


@PARSERS.register_module(name="sharegpt")
def sharegpt(record: dict) -> dict:
    """Conversation in ShareGPT's layout: LLaVA's, with a system text or without.

    The system text is that of the key `system`, or of a first entry from 'system'. Text of gpt before the first
    question is left out. `<image>` is the position of an image only in a record with images; in other records it is
    text.
    """
    entries, images, systems = field(record, "conversations", list), image_list(record), []
    if entries and _role(entries[0]) == "system":
        systems, entries = [_value(entries[0], "system")], entries[1:]
    if entries and _role(entries[0]) == "gpt":
        entries = entries[1:]
    turns = _turns(entries, marked_question if images else str)
    return add_system(_sample(record, images, turns), record, systems)


@PARSERS.register_module(name="baize")
def baize(record: dict) -> dict:
    """Record of Baize's chat data: one string with `[|Human|]` or `[|AI|]` before each text.

    All answered turns are used. A record without any becomes a turn with an empty answer, so that the dataset counts
    it.
    """
    _, *tokens = BAIZE_ROLE.split(field(record, "input"))
    entries = [(role, text.strip()) for role, text in zip(tokens[0::2], tokens[1::2], strict=True)]
    turns = [
        {"question": question, "answer": answer}
        for (asker, question), (answerer, answer) in zip(entries, entries[1:], strict=False)
        if (asker, answerer) == ("Human", "AI") and question and answer
    ]
    return {"id": "", "images": [], "turns": turns or [{"question": entries[0][1] if entries else "", "answer": ""}]}


def _sample(record: dict, images: list[str], turns: list[dict]) -> dict:
    refuse_other_media(record)
    if not images:
        refuse_images(record)
    return {"id": name_of(record, "id"), "images": images, "turns": turns}


def _turns(entries: Sequence[dict], to_question: Callable[[str], str | list[dict]]) -> list[dict]:
    """Turns of alternating entries; `to_question` makes a question of the text of a human."""
    if not entries:
        raise ValueError("conversations is empty")
    turns = [
        {"question": to_question(_value(human, "human")), "answer": _value(answer, "gpt")}
        for human, answer in zip(entries[0::2], entries[1::2], strict=False)
    ]
    return turns or [{"question": to_question(_value(entries[0], "human")), "answer": ""}]


def _role(entry: dict) -> str:
    if not isinstance(entry, dict):
        raise ValueError(f"conversations must hold objects, got {entry!r:.80}")
    role = field(entry, "from")
    return ROLE_NAMES.get(role, role)


def _value(entry: dict, role: str) -> str:
    if _role(entry) != role:
        raise ValueError(f"conversations must go human, gpt, human, ...: found {entry['from']!r}, expected {role!r}")
    return field(entry, "value").strip()


def marked_question(value: str) -> str | list[dict]:
    """Question of a text: the text itself, or contents if it has `<image>` marks.

    Marks at both ends become images at the start. If there are others in between, only those at the start do, so that
    the images keep their order.
    """
    before, inside, after = ENDS.match(value).groups()
    if MARK in inside:
        inside, after = inside + after, ""
    leading = (before + after).count(MARK)
    if not leading and MARK not in inside:
        return value
    contents = [content for text in inside.split(MARK) for content in (IMAGE_CONTENT, text_content(text))][1:]
    return [IMAGE_CONTENT] * leading + question_contents(contents)
