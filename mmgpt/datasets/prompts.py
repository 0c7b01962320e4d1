"""Prompt templates, and the text segments of a conversation in a template."""

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

from mmengine.logging import print_log
from transformers import PreTrainedTokenizerBase

from mmgpt.models.special_tokens import special_positions, special_tokens
from mmgpt.registry import PROMPTS

from .chat_template import ChatTemplate
from .conversation import is_image, leading_images, prepend_text, question_contents
from .segments import IMAGE, Segment, join_segments

CHAT = "chat"  # name of the language model's own chat template
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
PROMPTS.register_module(CHAT, module=ChatTemplate)
ENDS = (EOS, END_OF_CHUNK)
PLACEHOLDERS = {"image": IMAGE, "question": "{question}", "context": "{context}"}


# Texts that look like the special tokens of a model.
CONTROL = re.compile(r"<[|｜][^<>|｜\s]+[|｜]>|</?s>|<(?:bos|pad|unk|(?:start|end)_of_\w+)>")


def find_template(
    template: str | Mapping[str, str] | ChatTemplate, tokenizer: PreTrainedTokenizerBase | None = None
) -> dict[str, str] | ChatTemplate:
    """Prompt template by its name in PROMPTS, or a template itself, checked.

    The keys of a template: `start` (once), `image` (for each leading image of a question), `question`, `context` (when
    there is one), `response` (before the answer), `end` (the special token after it; default `<eos>`), `next` (before
    each further turn). "chat" is the tokenizer's own template (see `ChatTemplate`).

    Args:
        template: name, dict, or ChatTemplate.
        tokenizer: the language model's, whose special tokens are special in the template's texts. Without it, "chat" is
            refused, `end` is one of ENDS, and all other special tokens would be letters (a warning says so).

    Raises:
        ValueError: unknown name, or other keys; names the choices. A text holds what looks like a special token, but is
            none of the tokenizer's.
    """
    if isinstance(template, ChatTemplate):
        return template
    if isinstance(template, str):
        if template not in PROMPTS.module_dict:
            raise ValueError(f"unknown prompt template {template!r}: choose among {', '.join(PROMPTS.module_dict)}")
        if template == CHAT:
            if tokenizer is None:
                raise ValueError(
                    "prompt template 'chat' is the tokenizer's own: FormatPrompt needs tokenizer='${language_model}'"
                )
            return ChatTemplate(tokenizer)
        template = PROMPTS.module_dict[template]()
    template = {**template, "end": template.get("end", EOS)}
    if set(template) != set(SHORT):
        raise ValueError(f"a prompt template has the keys {', '.join(SHORT)}, got {', '.join(template)}")
    for key, placeholder in PLACEHOLDERS.items():
        if placeholder not in template[key]:
            raise ValueError(f"a prompt template's {key!r} must hold {placeholder}, got {template[key]!r}")
    names = set() if tokenizer is None else special_tokens(tokenizer)
    ends = [*ENDS, *(name for name in names if name not in (IMAGE, END_OF_CHUNK))]
    if template["end"] not in ends:
        raise ValueError(f"a prompt template's 'end' is one of {', '.join(ends)}, got {template['end']!r}")
    for key in template.keys() - {"end"}:
        spelled = [name for name in CONTROL.findall(template[key]) if name not in names]
        if not spelled:
            continue
        text = f"a prompt template's {key!r} holds {spelled[0]!r}"
        if tokenizer is not None:
            raise ValueError(f"{text}, which is not a special token of the tokenizer: it would be spelled in letters")
        text += ", which is spelled in letters: give FormatPrompt tokenizer='${language_model}', and it is one token"
        print_log(text, "current", logging.WARNING)
    return template


def format_turns(
    template: Mapping[str, str],
    turns: Sequence[dict],
    open_last: bool = False,
    system: str = "",
    special: frozenset[str] = frozenset(),
) -> list[Segment]:
    """Segments of a conversation: prompts, each followed by its answer and the end of the answer, which have labels.

    Args:
        template: see `find_template`.
        turns: turns with an image content for every image (see `conversation.place_images`).
        open_last: leave out the last answer, so that a model can continue the text. A last turn without an answer is
            open in any case; an empty answer of an earlier turn has no labels.
        system: the system text, which goes before the first question, after its leading images.
        special: names of the tokens that are special in the template's texts.
    """
    first = dict(turns[0], question=prepend_text(system, turns[0]["question"]))
    segments = []
    for number, turn in enumerate([first, *turns[1:]]):
        answer = turn.get("answer", "")
        segments += _prompt_segments(template, turn, number == 0, special)
        if number == len(turns) - 1 and (open_last or not answer):
            break
        segments += answer_segments(template, answer)
    return join_segments(segments)


def answer_segments(template: Mapping[str, str], answer: str) -> list[Segment]:
    """An answer and its end, both with labels unless the answer is empty."""
    return [Segment(answer, bool(answer)), Segment(template["end"], bool(answer), True)]


def check_ends(template: Mapping[str, str] | ChatTemplate, eos: str, ends: Collection[str]) -> None:
    """Logs a warning if generation does not stop at the token with which a template ends answers.

    Args:
        template: see `find_template`.
        eos: the tokenizer's end of sequence.
        ends: tokens at which generation stops.
    """
    end = template.end if isinstance(template, ChatTemplate) else template["end"]
    end = eos if end == EOS else end
    if end not in ends:
        stops = " or ".join(map(repr, ends)) or "no token"
        text = f"the prompt template ends answers with {end!r}, but generation stops at {stops}"
        print_log(f"{text}: set end_token={end!r} among the generation arguments", "current", logging.WARNING)


def _prompt_segments(
    template: Mapping[str, str], turn: dict, is_first: bool, special: frozenset[str]
) -> Iterator[Segment]:
    """Segments of a turn before its answer, some of them empty."""
    contents = question_contents(turn["question"])
    images = leading_images(contents)
    yield from _template_segments(template["start"] if is_first else template["next"], special)
    before, _, after = template["image"].partition(IMAGE)
    for _ in range(images):
        yield from _template_segments(before, special)
        yield Segment(IMAGE, special=True)
        yield from _template_segments(after, special)
    # The template is split, not formatted, because braces in a user's text are text.
    before, _, after = template["question"].partition("{question}")
    yield from _template_segments(before, special)
    for content in contents[images:]:
        yield Segment(IMAGE, special=True) if is_image(content) else Segment(content["text"])
    yield from _template_segments(after, special)
    if turn.get("context"):
        before, _, after = template["context"].partition("{context}")
        yield from _template_segments(before, special)
        yield Segment(turn["context"])
        yield from _template_segments(after, special)
    yield from _template_segments(template["response"], special)


def _template_segments(text: str, special: frozenset[str]) -> Iterator[Segment]:
    """Segments of a text of the template, split at its special tokens."""
    position = 0
    for start, end in special_positions(text, special):
        yield Segment(text[position:start])
        yield Segment(text[start:end], special=True)
        position = end
    yield Segment(text[position:])
