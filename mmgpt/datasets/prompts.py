"""Prompt templates, and the text segments of a conversation in a template."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from mmengine.logging import print_log

from mmgpt.registry import PROMPTS

from .conversation import is_image, leading_images, question_contents

IMAGE = "<image>"
EOS = "<eos>"  # replaced by the tokenizer's end of sequence
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
    # This template is for pretraining: an image, then its caption.
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
PLACEHOLDERS = {"image": IMAGE, "question": "{question}", "context": "{context}"}


class Segment(NamedTuple):
    """Piece of a prompt: `supervised` if its tokens have labels, `special` if it is one token (`<image>`, an end)."""

    text: str
    supervised: bool = False
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
    for key, placeholder in PLACEHOLDERS.items():
        if placeholder not in template[key]:
            raise ValueError(f"a prompt template's {key!r} must hold {placeholder}, got {template[key]!r}")
    if template["end"] not in ENDS:
        raise ValueError(f"a prompt template's 'end' is one of {', '.join(ENDS)}, got {template['end']!r}")
    return template


def format_turns(template: Mapping[str, str], turns: Sequence[dict], open_last: bool = False) -> list[Segment]:
    """Segments of a conversation: prompts, each followed by its answer and the end of the answer, which have labels.

    Args:
        template: see `find_template`.
        turns: turns with an image content for every image (see `conversation.place_images`).
        open_last: leave out the last answer, so that a model can continue the text. A last turn without an answer is
            open in any case; an empty answer of an earlier turn has no labels.
    """
    segments = []
    for number, turn in enumerate(turns):
        answer = turn.get("answer", "")
        segments += _prompt_segments(template, turn, is_first=number == 0)
        if number == len(turns) - 1 and (open_last or not answer):
            break
        segments += answer_segments(template, answer)
    # Neighboring texts are joined, so that a tokenizer sees them as a whole.
    joined: list[Segment] = []
    for segment in segments:
        if not segment.text:
            continue
        last = joined[-1] if joined else None
        if last and not last.special and not segment.special and last.supervised == segment.supervised:
            joined[-1] = last._replace(text=last.text + segment.text)
        else:
            joined.append(segment)
    return joined


def answer_segments(template: Mapping[str, str], answer: str) -> list[Segment]:
    """An answer and its end, both with labels unless the answer is empty."""
    return [Segment(answer, bool(answer)), Segment(template["end"], bool(answer), True)]


def check_ends(template: Mapping[str, str], eos: str, ends: Collection[str]) -> None:
    """Logs a warning if generation does not stop at the token with which a template ends answers.

    Args:
        template: see `find_template`.
        eos: the tokenizer's end of sequence.
        ends: tokens at which generation stops.
    """
    end = eos if template["end"] == EOS else template["end"]
    if end not in ends:
        stops = " or ".join(map(repr, ends)) or "no token"
        text = f"the prompt template ends answers with {end!r}, but generation stops at {stops}"
        print_log(f"{text}: set end_token={end!r} among the generation arguments", "current", logging.WARNING)


def prompt_text(segments: Sequence[Segment]) -> str:
    """Text of segments, special ones by their names."""
    return "".join(segment.text for segment in segments)


def _prompt_segments(template: Mapping[str, str], turn: dict, is_first: bool) -> Iterator[Segment]:
    """Segments of a turn before its answer, some of them empty."""
    contents = question_contents(turn["question"])
    images = leading_images(contents)
    yield Segment(template["start"] if is_first else template["next"])
    before, _, after = template["image"].partition(IMAGE)
    for _ in range(images):
        yield from (Segment(before), Segment(IMAGE, special=True), Segment(after))
    # The template is split, not formatted, because braces in a user's text are text.
    before, _, after = template["question"].partition("{question}")
    yield Segment(before)
    for content in contents[images:]:
        yield Segment(IMAGE, special=True) if is_image(content) else Segment(content["text"])
    yield Segment(after)
    if turn.get("context"):
        before, _, after = template["context"].partition("{context}")
        yield Segment(before + turn["context"] + after)
    yield Segment(template["response"])
