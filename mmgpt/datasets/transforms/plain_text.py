"""Text to token ids, none of which is a special token's."""

import json
from functools import cached_property

from tokenizers import Encoding, Tokenizer

AS_TEXT = {"add_special_tokens": False, "split_special_tokens": True}


class PlainText:
    """Encoder of text that stays text: whatever is typed, no special token and no mark of a template comes out.

    `split_special_tokens` is not enough for that. It does not hold for added tokens that a file calls ordinary, as
    `<think>` often is, nor for special tokens that are pieces of the model's own vocabulary, where a unigram model
    finds `</s>` like any other piece.

    Args:
        tokenizer: as `models.tokenizer.load_tokenizer` gives it.
        is_mark: whether the text of an added token is that of a mark.
    """

    def __init__(self, tokenizer, is_mark):
        self.tokenizer, self.is_mark = tokenizer, is_mark
        added = tokenizer.added_tokens_decoder.items()
        self.names = {i: token.content for i, token in added if token.special or is_mark(token.content)}

    def __call__(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and for each where its text begins and ends."""
        encoding = self.tokenizer(text, **AS_TEXT).encodings[0]
        if self.names.keys().isdisjoint(encoding.ids) or not self._typed(text, encoding):
            return encoding.ids, encoding.offsets
        encoding = self._splitting.encode(text, add_special_tokens=False)
        ids, spans, typed = [], [], set(self._typed(text, encoding))
        for place, (token, (start, end)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True)):
            if place not in typed:
                ids.append(token)
                spans.append((start, end))
                continue
            for letter in self.names[token]:
                letter_ids = [piece.id for piece in self._splitting.model.tokenize(letter)]
                ids += letter_ids
                spans += [(start, end)] * len(letter_ids)
        return ids, spans

    def _typed(self, text: str, encoding: Encoding) -> list[int]:
        """The indices of special tokens; `<unk>` counts where it was typed, not where it stands for a character."""
        unknown = self.tokenizer.unk_token_id
        return [
            place
            for place, (token, (start, end)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True))
            if token in self.names and (token != unknown or text[start:end].strip() == self.names[token])
        ]

    @cached_property
    def _splitting(self) -> Tokenizer:
        """The tokenizer with all marks special: made when one is typed for the first time."""
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for token in state["added_tokens"]:
            token["special"] = token["special"] or bool(self.is_mark(token["content"]))
        tokenizer = Tokenizer.from_str(json.dumps(state))
        tokenizer.encode_special_tokens = True
        return tokenizer
