"""Prompt templates as data, and the one function that turns a conversation into text segments."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from mmengine.logging import print_log

from mmgpt.registry import PROMPTS

from .conversation import is_image, leading_images, question_parts

IMAGE = "<image>"
EOS = "<eos>"  # stands for the tokenizer's own end of sequence
END_OF_CHUNK = "<|endofchunk|>"  # OpenFlamingo's end of an answer

SHORT = {
    "start": "",
    "image": f"### Image:\n{IMAGE}\n\n",
    "question": "### Instruction:\n{question}\n\n",
    "context": "### Input:\n{context}\n\n",
    "response": "### Response:\n",
    "end": EOS,
    "next": "\n\n",
}
# The published wording of MultiModal-GPT, after Stanford Alpaca's.
INSTRUCTION_START = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
)
TEMPLATES = {
    "instruction": {**SHORT, "start": INSTRUCTION_START},
    "short": SHORT,
    # For pretraining: an image, then its caption.
    "plain": {
        "start": "",
        "image": IMAGE,
        "question": "{question}",
        "context": "{context}",
        "response": "",
        "end": EOS,
        "next": "",
    },
}
# OpenFlamingo's wording for captions and for short answers (open_flamingo/eval/eval_model.py of version 2).
_CHUNK = {**TEMPLATES["plain"], "end": END_OF_CHUNK}
TEMPLATES["openflamingo_caption"] = {**_CHUNK, "response": "Output:"}
TEMPLATES["openflamingo_vqa"] = {
    **_CHUNK,
    "question": "Question:{question} ",
    "context": "{context} ",
    "response": "Short answer:",
}
for _name, _template in TEMPLATES.items():
    PROMPTS.register_module(_name, module=partial(dict, _template))
ENDS = (EOS, END_OF_CHUNK)
PLACES = {"image": IMAGE, "question": "{question}", "context": "{context}"}


class Segment(NamedTuple):
    """A stretch of a prompt: whether it is learned, and whether it is special (`<image>` or an end: one token)."""

    text: str
    learned: bool = False
    special: bool = False


def find_template(template: str | Mapping[str, str]) -> dict[str, str]:
    """Prompt template by its name in PROMPTS, or a template itself, checked.

    The keys of a template: `start` (once), `image` (for each leading image of a question), `question`, `context` (when
    there is one), `response` (before the answer), `end` (the special token after it; default `<eos>`), `next` (before
    each further turn).

    Raises:
        ValueError: unknown name, or other keys; names the choices.
    """
    if isinstance(template, str):
        if template not in PROMPTS.module_dict:
            raise ValueError(f"unknown prompt template {template!r}: choose among {', '.join(PROMPTS.module_dict)}")
        template = PROMPTS.module_dict[template]()
    template = {**template, "end": template.get("end", EOS)}
    if set(template) != set(SHORT):
        raise ValueError(f"a prompt template has the keys {', '.join(SHORT)}, got {', '.join(template)}")
    for key, mark in PLACES.items():
        if mark not in template[key]:
            raise ValueError(f"a prompt template's {key!r} must hold {mark}, got {template[key]!r}")
    if template["end"] not in ENDS:
        raise ValueError(f"a prompt template's 'end' is one of {', '.join(ENDS)}, got {template['end']!r}")
    return template


def format_turns(template: Mapping[str, str], turns: Sequence[dict], open_last: bool = False) -> list[Segment]:
    """The segments of a conversation: prompts, and after each its answer and its end, both learned.

    Args:
        template: see `find_template`.
        turns: with their image parts in place (see `conversation.place_images`).
        open_last: leave the last answer out, so that the text ends where a model goes on. A last turn without an
            answer is open in any case; an empty answer before it is not learned.
    """
    segments = []
    for number, turn in enumerate(turns):
        answer = turn.get("answer", "")
        last = number == len(turns) - 1
        segments += _prompt(template, turn, first=number == 0)
        if last and (open_last or not answer):
            break
        segments += answer_segments(template, answer)
    return list(_merged(segments))


def answer_segments(template: Mapping[str, str], answer: str) -> list[Segment]:
    """An answer and its end, both learned where there is an answer."""
    return [Segment(answer, bool(answer)), Segment(template["end"], bool(answer), True)]


def check_ends(template: Mapping[str, str], eos: str, ends: Collection[str]) -> None:
    """Log a warning where generation goes on behind the token with which a template teaches answers to end.

    Args:
        template: see `find_template`.
        eos: the tokenizer's end of sequence.
        ends: the tokens at which generation stops.
    """
    end = eos if template["end"] == EOS else template["end"]
    if end not in ends:
        stops = " or ".join(map(repr, ends)) or "no token"
        text = f"the prompt template ends answers with {end!r}, but generation stops at {stops}"
        print_log(f"{text}: set end_token={end!r} among the generation arguments", "current", logging.WARNING)


def prompt_text(segments: Sequence[Segment]) -> str:
    """Segments as one string, special ones by their names."""
    return "".join(segment.text for segment in segments)


def _prompt(template: Mapping[str, str], turn: dict, first: bool) -> Iterator[Segment]:
    parts = question_parts(turn["question"])
    leading = leading_images(parts)
    yield Segment(template["start"] if first else template["next"])
    for _ in range(leading):
        yield from _around_image(template["image"])
    # Split, not formatted: braces in a user's text are text.
    before, _, after = template["question"].partition("{question}")
    yield Segment(before)
    for part in parts[leading:]:
        yield Segment(IMAGE, special=True) if is_image(part) else Segment(part["text"])
    yield Segment(after)
    if turn.get("context"):
        before, _, after = template["context"].partition("{context}")
        yield Segment(before + turn["context"] + after)
    yield Segment(template["response"])


def _around_image(text: str) -> Iterator[Segment]:
    before, _, after = text.partition(IMAGE)
    yield from (Segment(before), Segment(IMAGE, special=True), Segment(after))


def _merged(segments: Sequence[Segment]) -> Iterator[Segment]:
    """Neighbouring texts of one kind as one segment, so that a tokenizer sees them whole; empty ones go."""
    held = None
    for segment in segments:
        if not segment.text:
            continue
        if held and not (held.special or segment.special) and held.learned == segment.learned:
            held = held._replace(text=held.text + segment.text)
            continue
        if held:
            yield held
        held = segment
    if held:
        yield held
