"""Special tokens and marks of a tokenizer, which only a template can write: their names and their places in a text."""

import functools
import re

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

# A token that looks like <|im_end|> is special, even where its file does not mark it as special.
CONTROL = re.compile(r"<[|｜][^<>|｜\s]+[|｜]>")
# Added tokens that look like these are marks of a template or of a tool, such as <think>. Other added tokens are
# ordinary text, and so are numbers in brackets and the HTML elements that are single tokens of Gemma.
MARK = re.compile(r"<[^<>\s]+>|\[(?!\d+\])[^\[\]\s]+\]")
HTML = re.compile(
    r"</?(a|b|blockquote|br|caption|code|div|em|h[1-6]|hr|i|img|li|ol|p|pre|span|strong|sub|sup|table|tbody|td|tfoot|th"
    r"|thead|tr|u|ul)/?>"
)


def is_mark(token: str) -> bool:
    """Whether an added token that is not special is a mark, which typed text never becomes."""
    return MARK.fullmatch(token) is not None and not HTML.fullmatch(token)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, AddedToken]:
    """The special tokens and marks of a tokenizer by name, which only a template can write."""
    added = tokenizer.added_tokens_decoder.values()
    return {token.content: token for token in added if token.special or is_mark(token.content)}


@functools.lru_cache(maxsize=4096)
def special_positions(text: str, names: frozenset[str]) -> tuple[tuple[int, int], ...]:
    """(start, end) of the special tokens in a template's text; of two with one start, the longer one."""
    names = sorted((name for name in names if name in text), key=len, reverse=True)
    return tuple(match.span() for match in re.finditer("|".join(map(re.escape, names)), text)) if names else ()


def starts_texts(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer puts its start of sequence in front of texts."""
    return tokenizer.bos_token is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The special token with which a tokenizer's chat template ends an answer; None where there is none."""
    answer = "\U000f0000"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:  # There is no template, or it fails, as a program can.
        return None
    _, found, rest = text.rpartition(answer)
    ends = special_positions(rest, frozenset(special_tokens(tokenizer))) if found else ()
    return rest[slice(*ends[0])] if ends else None
