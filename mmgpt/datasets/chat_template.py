"""The language model's own chat template, in Jinja: the segments of a conversation that transformers renders by it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from mmgpt.models.special_tokens import end_of_turn, special_positions, special_tokens

from .conversation import is_image, question_contents
from .segments import IMAGE, Segment, join_segments

# Characters of Unicode's private planes: one stands for an image, the others for the characters of one message each.
IMAGE_CHARACTER, FIRST_MASK = "\U0010fffd", 0xF0000
MASKED = re.compile(r"([\U000f0000-\U000ffffd])(?:\s*\1)*")
TAG = re.compile(r"</?\w+>")
PLACEHOLDER = "a"  # stands for the answer of an open prompt


class Message(NamedTuple):
    """Message of a conversation: its role and its texts, None for an image."""

    role: str
    contents: list[str | None]

    def render(self) -> dict[str, str]:
        """The message as transformers has it, with a private character for each image."""
        return {"role": self.role, "content": "".join(IMAGE_CHARACTER if t is None else t for t in self.contents)}

    def masked(self, mask: str, kept: re.Pattern) -> "Message":
        """Copy of the message with `mask` for each character, outside of whitespace and of what `kept` matches."""
        texts = (text and kept.sub(lambda match: match[1] or mask, text) for text in self.contents)
        return self._replace(contents=list(texts))


class ChatTemplate:
    """Prompt template that a tokenizer brings along, for conversations with a system text or without, and images.

    A conversation is rendered by transformers, and then once more with private characters in the place of its contents.
    So each character is known to be the template's or a content's: special tokens are found in what the template
    writes, never in what somebody typed, and the labels begin where the generation prompt ends.

    Args:
        tokenizer: of `models.tokenizer.load_tokenizer`; of several templates, "default" is used.

    Attributes:
        source: the template's text.
        end: the special token that ends an answer.

    Raises:
        ValueError: the tokenizer has no such template, the template is not valid Jinja, or no special token ends an
            answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer, self.tokens = tokenizer, special_tokens(tokenizer)
        self.names = frozenset(self.tokens) - {IMAGE} | {IMAGE_CHARACTER}
        try:
            self.source = tokenizer.get_chat_template()
        except ValueError as error:
            raise ValueError(
                "prompt_template='chat': the tokenizer has no chat template (chat_template.jinja, or chat_template in "
                "its tokenizer_config.json): choose another prompt template"
            ) from error
        # A template may look for marks such as </think> in a message.
        marks = sorted(set(TAG.findall(self.source)), key=len, reverse=True)
        self.kept = [re.compile(r"()\S"), re.compile(rf"({'|'.join(map(re.escape, marks))})|\S")]
        self._render([Message("user", ["a"]), Message("assistant", ["a"])])
        self.end = end_of_turn(tokenizer)
        if self.end is None:
            raise ValueError(
                "prompt_template='chat': no special token of the tokenizer follows an answer in its chat template, so "
                "that no answer would end"
            )

    def format_turns(
        self, turns: Sequence[dict], open_last: bool = False, system: str = "", last_only: bool = False
    ) -> list[Segment]:
        """Segments of a conversation; the words of its answers and the token that ends each have labels.

        The open prompt of an answer is what the template writes before it: the generation prompt, and where a closed
        conversation has more than whitespace after that (Qwen3's empty reasoning), this too. It is thus always the
        beginning of the closed text. The trailing spaces of a generation prompt are left to the answer, since
        tokenizers join a space with the word after it.

        Args:
            turns: as for `prompts.format_turns`; a context follows its question after a blank line.
            open_last: as for `prompts.format_turns`.
            system: the system text; without one, the template may write its own.
            last_only: whether only the last answer has labels.

        Raises:
            ValueError: the template refuses the conversation, changes or leaves out a message (a system text, for
                one), or ends an answer with no special token.
        """
        # 1. Messages; an open answer is rendered as if there were one, and cut off.
        is_open = open_last or not turns[-1].get("answer")
        messages = [Message("system", [system])] if system.strip() else []
        for turn in turns:
            messages += [Message("user", list(_question(turn))), Message("assistant", [turn.get("answer", "")])]
        if is_open:
            messages[-1] = Message("assistant", [PLACEHOLDER])
        # 2. The text, and the text with the contents masked.
        text, mask, gaps = self._aligned(messages)
        # 3. Special tokens of the template, and images, with the whitespace that they take.
        tokens = list(self._tokens(text, mask, gaps))
        # 4. Labels: from the end of each answer's prompt to the token that ends it.
        supervised, start = [], 0
        for number, message in enumerate(messages):
            first, last = mask.find(_mask(number)), mask.rfind(_mask(number))
            if message.role != "assistant" or first < 0:
                continue
            start, is_last = self._start(messages[:number], text, first), number == len(messages) - 1
            if is_last and is_open:
                text, tokens = text[:start], [token for token in tokens if token[0] < start]
            elif is_last or not last_only:
                end = next((end for begin, end, name in tokens if begin > last and name != IMAGE), None)
                if end is None:
                    raise ValueError("no special token of the tokenizer ends an answer in the chat template")
                supervised.append(range(start, end))
        return join_segments(_segments(text, tokens, supervised))

    def _render(self, messages: Sequence[Message], open_prompt: bool = False) -> str:
        """The text of messages, and with `open_prompt` the generation prompt after them."""
        rendered = [message.render() for message in messages]
        try:
            return self.tokenizer.apply_chat_template(rendered, tokenize=False, add_generation_prompt=open_prompt)
        except TemplateSyntaxError as error:
            place = f"line {error.lineno} of the tokenizer's chat template"
            raise ValueError(f"{place} is not valid Jinja: {error.message}") from error
        except Exception as error:  # A template is a program, and raises what it likes.
            roles = ", ".join(message.role for message in messages)
            raise ValueError(f"the chat template refuses a conversation of {roles}: {error}") from error

    def _aligned(self, messages: Sequence[Message]) -> tuple[str, str, list[slice]]:
        """Text of messages, the same text with its contents masked, and the stretches that the template writes."""
        for kept in self.kept:
            masked = [message.masked(_mask(number), kept) for number, message in enumerate(messages)]
            text, mask = self._render(messages), self._render(masked)
            bounds = [0, *(bound for run in MASKED.finditer(mask) for bound in run.span()), len(mask)]
            gaps = [slice(*pair) for pair in zip(bounds[::2], bounds[1::2], strict=True)]
            if len(text) == len(mask) and all(text[gap] == mask[gap] for gap in gaps):
                break
        else:
            raise ValueError("the chat template changes messages, so that its own text cannot be told from theirs")
        for number, message in enumerate(messages):
            if "".join(filter(None, message.contents)).strip() and _mask(number) not in mask:
                raise ValueError(f"the chat template leaves out the text of a {message.role} message")
        if mask.count(IMAGE_CHARACTER) != sum(message.contents.count(None) for message in messages):
            raise ValueError("the chat template leaves out or repeats images")
        return text, mask, gaps

    def _tokens(self, text: str, mask: str, gaps: Sequence[slice]) -> Iterator[tuple[int, int, str]]:
        """Yields (start, end, name) of the special tokens that the template writes, and of images."""
        stop = 0
        for gap in gaps:
            for start, end in special_positions(mask[gap], self.names):
                name = mask[gap][start:end].replace(IMAGE_CHARACTER, IMAGE)
                start, end = gap.start + start, gap.start + end
                # A token that is declared with lstrip or rstrip takes the whitespace beside it, also of a content.
                if self.tokens[name].lstrip:
                    start = max(stop, len(text[:start].rstrip()))
                if self.tokens[name].rstrip:
                    end = len(text) - len(text[end:].lstrip())
                stop = end
                yield start, end, name

    def _start(self, messages: Sequence[Message], text: str, first: int) -> int:
        """Where the prompt of an answer ends, whose first character is at `first`."""
        prompt = self._render(messages, open_prompt=True)
        is_prefix = text.startswith(prompt) and not text[len(prompt) : first].strip()
        return len(prompt.rstrip(" ")) if is_prefix else first


def _mask(number: int) -> str:
    """The private character for the characters of message `number`."""
    return chr(FIRST_MASK + number)


def _question(turn: Mapping) -> Iterator[str | None]:
    """Yields the texts of a turn's question and context, and None for each image."""
    contents = question_contents(turn["question"])
    for content in contents:
        yield None if is_image(content) else content["text"]
    if turn.get("context"):
        yield ("\n\n" if contents else "") + turn["context"]


def _segments(text: str, tokens: Sequence[tuple[int, int, str]], supervised: Sequence[range]) -> Iterator[Segment]:
    """Yields the segments of a text, some of them empty."""
    bounds = sorted({bound for span in supervised for bound in (span.start, span.stop)})
    position = 0
    for start, end, name in [*tokens, (len(text), len(text), "")]:
        for bound in [*(bound for bound in bounds if position < bound < start), start]:
            yield Segment(text[position:bound], any(position in span for span in supervised), rendered=True)
            position = bound
        yield Segment(name, any(start in span for span in supervised), special=True, rendered=True)
        position = end
