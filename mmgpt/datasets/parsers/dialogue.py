"""Conversations: LLaVA's about images, ShareGPT's with images or without, Baize's in text."""

import re
from collections.abc import Callable, Sequence

from mmgpt.datasets.conversation import IMAGE_PART, lead_text, question_parts, text_part
from mmgpt.registry import PARSERS

from .fields import field, has, name_of, no_images, only_known_media, text_list

MARK = "<image>"
# Marks at the start, text, marks at the end; white space next to these marks belongs to them.
ENDS = re.compile(rf"((?:{MARK}\s*)*)(.*?)((?:\s*{MARK})*)\Z", re.DOTALL)
BAIZE_ROLE = re.compile(r"\[\|(Human|AI)\|\]")


@PARSERS.register_module(name="llava")
def llava(record: dict) -> dict:
    """A record in the layout of LLaVA-Instruct-150K, of one turn or many: `conversations` of human and gpt in turn.

    `image` (or `images`) is a path or a list of them. `<image>` in a human value is the place of an image. LLaVA puts
    the mark before or after the question at random, with a line break between: behind the question it means the same
    as before it, and moves there. Within the text it stays, and so do line breaks next to it.

    A question at the end that nobody answers is left out, unless it is the only one: then its turn is open.
    """
    return _sample(record, _images(record), _turns(field(record, "conversations", list), marked_question))


@PARSERS.register_module(name="sharegpt")
def sharegpt(record: dict) -> dict:
    """A conversation in ShareGPT's layout: LLaVA's, with a system text or without.

    The system text (the key `system`, or a first entry from 'system') opens the first question, behind its images.
    What gpt says before the first question answers nothing and is left out. `<image>` is the place of an image only in
    a record that has images; in any other it is text that somebody typed.
    """
    said, images = field(record, "conversations", list), _images(record)
    system = [field(record, "system").strip()] if has(record, "system") else []
    if said and _role(said[0]) == "system":
        system, said = [*system, _value(said[0], "system")], said[1:]
    if said and _role(said[0]) == "gpt":
        said = said[1:]
    first, *others = _turns(said, marked_question if images else str)
    question = lead_text("\n\n".join(text for text in system if text), first["question"])
    return _sample(record, images, [dict(first, question=question), *others])


@PARSERS.register_module(name="baize")
def baize(record: dict) -> dict:
    """A record of Baize's chat data: one string with `[|Human|]` and `[|AI|]` before what each of them says.

    Every answered turn is kept. A record without one becomes an open turn, so that the dataset counts it.
    """
    _, *pieces = BAIZE_ROLE.split(field(record, "input"))
    said = [(role, text.strip()) for role, text in zip(pieces[0::2], pieces[1::2], strict=True)]
    turns = [
        {"question": question, "answer": answer}
        for (asker, question), (answerer, answer) in zip(said, said[1:], strict=False)
        if (asker, answerer) == ("Human", "AI") and question and answer
    ]
    return {"id": "", "images": [], "turns": turns or [{"question": said[0][1] if said else "", "answer": ""}]}


def _sample(record: dict, images: list[str], turns: list[dict]) -> dict:
    only_known_media(record)
    if not images:
        no_images(record)
    return {"id": name_of(record, "id"), "images": images, "turns": turns}


def _images(record: dict) -> list[str]:
    found = [text_list(record, key) for key in ("image", "images") if has(record, key)]
    if len(found) == 2 and all(found) and found[0] != found[1]:
        raise ValueError(f"'image' and 'images' name different files: {found[0]} and {found[1]!r:.80}")
    return next(filter(None, found), [])


def _turns(said: Sequence[dict], read: Callable[[str], str | list[dict]]) -> list[dict]:
    """Questions, as `read` makes them of the human's values, with the answers that follow them."""
    if not said:
        raise ValueError("conversations is empty")
    turns = [
        {"question": read(_value(human, "human")), "answer": _value(answer, "gpt")}
        for human, answer in zip(said[0::2], said[1::2], strict=False)
    ]
    return turns or [{"question": read(_value(said[0], "human")), "answer": ""}]


def _role(entry: dict) -> str:
    if not isinstance(entry, dict):
        raise ValueError(f"conversations must hold objects, got {entry!r:.80}")
    return field(entry, "from")


def _value(entry: dict, role: str) -> str:
    if _role(entry) != role:
        raise ValueError(f"conversations must go human, gpt, human, ...: found {entry['from']!r} for {role!r}")
    return field(entry, "value").strip()


def marked_question(value: str) -> str | list[dict]:
    """A text as it is, or its parts when it marks images by `<image>`.

    Marks at both ends become places at the start; where others lie between them only those before it do, so that
    the places keep the order of the images.
    """
    before, within, behind = ENDS.match(value).groups()
    if MARK in within:
        within, behind = within + behind, ""
    ends = (before + behind).count(MARK)
    if not ends and MARK not in within:
        return value
    parts = [part for text in within.split(MARK) for part in (IMAGE_PART, text_part(text))][1:]
    return [IMAGE_PART] * ends + question_parts(parts)
