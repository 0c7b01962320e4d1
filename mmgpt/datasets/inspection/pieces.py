"""Token ids as text that can be shown, token by token."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from mmgpt.datasets.prompts import IMAGE
from mmgpt.datasets.transforms.tokens import IGNORE_INDEX

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
LONGEST = 4  # bytes, and so tokens at most, of a character in UTF-8


class Piece(NamedTuple):
    """A token, or the few that make a character together.

    `text` is what is written there, the space that a token begins with included; `kind` is 'text', 'special' and
    'image' (then it is the token's name), or 'bytes' (the name of a token that is no text, not even with those behind
    it).
    """

    text: str
    ids: tuple[int, ...]
    learned: bool
    kind: str = "text"


def to_pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], labels: Sequence[int]) -> list[Piece]:
    """The pieces of a sequence, in order. Text that looks like a special token, but is none, is 'text'."""
    special, pieces, start = set(tokenizer.all_special_ids), [], 0
    while start < len(ids):
        name = tokenizer.convert_ids_to_tokens(ids[start])
        if ids[start] in special:
            text, count, kind = name, 1, "image" if name == IMAGE else "special"
        else:
            text, count = _text(tokenizer, ids[start : start + LONGEST])
            text, count, kind = (text, count, "text") if count else (name, 1, "bytes")
        pieces.append(Piece(text, tuple(ids[start : start + count]), labels[start] != IGNORE_INDEX, kind))
        start += count
    return pieces


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, int]:
    """The text of as few of the first ids as make whole characters, and their number; 0 when they never do."""
    # Behind something else: a tokenizer of sentencepiece drops the space that a text begins with.
    before = tokenizer.decode([tokenizer.eos_token_id])
    for count in range(1, len(ids) + 1):
        decoded = tokenizer.decode([tokenizer.eos_token_id, *ids[:count]], clean_up_tokenization_spaces=False)
        text = decoded[len(before) :]
        if text and UNFINISHED not in text:
            return text, count
    return "", 0
