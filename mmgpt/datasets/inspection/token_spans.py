"""Token ids as text for people, token by token."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from mmgpt.datasets.prompts import IMAGE
from mmgpt.models.loss import IGNORE_INDEX
from mmgpt.models.special_tokens import special_tokens

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
MAX_BYTES = 4  # bytes, and so tokens at most, of a character in UTF-8


class TokenSpan(NamedTuple):
    """A token, or the few tokens that make a character together.

    Attributes:
        text: text of the tokens, including the space that a token begins with; for kinds other than 'text' the name of
            the token.
        ids: token ids.
        supervised: whether they have labels.
        kind: 'text', 'special', 'image', or 'bytes' for a token that is not text, not even with those after it.
    """

    text: str
    ids: tuple[int, ...]
    supervised: bool
    kind: str = "text"


def to_token_spans(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], labels: Sequence[int]) -> list[TokenSpan]:
    """Spans of a sequence, in order. Text that only looks like a special token is 'text'."""
    special, spans, start = {*tokenizer.convert_tokens_to_ids(list(special_tokens(tokenizer)))}, [], 0
    # A sentencepiece tokenizer drops the space at the start of a text, so another token is put before it.
    before = tokenizer.decode([tokenizer.eos_token_id])
    while start < len(ids):
        name = tokenizer.convert_ids_to_tokens(ids[start])
        if ids[start] in special:
            text, count, kind = name, 1, "image" if name == IMAGE else "special"
        else:
            # The text is that of the smallest number of tokens that are complete characters, if there is one.
            text, count, kind = name, 1, "bytes"
            for end in range(start + 1, min(start + MAX_BYTES, len(ids)) + 1):
                sequence = [tokenizer.eos_token_id, *ids[start:end]]
                decoded = tokenizer.decode(sequence, clean_up_tokenization_spaces=False)[len(before) :]
                if decoded and INCOMPLETE not in decoded:
                    text, count, kind = decoded, end - start, "text"
                    break
        spans.append(TokenSpan(text, tuple(ids[start : start + count]), labels[start] != IGNORE_INDEX, kind))
        start += count
    return spans
