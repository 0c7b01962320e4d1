"""Conversations: LLaVA's about images, Baize's in text."""

import re

from mmgpt.datasets.conversation import IMAGE_PART, is_image, question_parts, text_part
from mmgpt.registry import PARSERS

from .fields import field

LLAVA_MARK = re.compile(r"\n?<image>\n?")
BAIZE_ROLE = re.compile(r"\[\|(Human|AI)\|\]")


@PARSERS.register_module(name="llava")
def llava(record: dict) -> dict:
    """A record of LLaVA-Instruct-150K, of one turn or many: `conversations` of human and gpt in turn.

    `<image>` in a human value is the place of an image, a line break next to it belongs to it. LLaVA puts the mark
    before or after the question at random; behind the question it means the same as before it, and moves there.
    A question at the end that nobody answers is left out, unless it is the only one: then its turn is open.
    """
    said = field(record, "conversations", list)
    if not said:
        raise ValueError("conversations is empty")
    turns = [
        {"question": _question(_value(human, "human")), "answer": _value(answer, "gpt")}
        for human, answer in zip(said[0::2], said[1::2], strict=False)
    ]
    turns = turns or [{"question": _question(_value(said[0], "human")), "answer": ""}]
    image = field(record, "image", (str, list)) if "image" in record else []
    return {"id": str(record.get("id", "")), "images": [image] if isinstance(image, str) else image, "turns": turns}


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


def _value(entry: dict, role: str) -> str:
    if field(entry, "from") != role:
        raise ValueError(f"conversations must go human, gpt, human, ...: found {entry['from']!r} for {role!r}")
    return field(entry, "value").strip()


def _question(value: str) -> str | list[dict]:
    """The value itself, or its parts when it marks images."""
    texts = LLAVA_MARK.split(value)
    if len(texts) == 1:
        return value
    parts = question_parts([part for text in texts for part in (IMAGE_PART, text_part(text))][1:])
    behind = next((i for i, part in enumerate(reversed(parts)) if not is_image(part)), 0)
    return parts[len(parts) - behind :] + parts[: len(parts) - behind]
