"""Encoding of text without special tokens."""

import json
from copy import deepcopy
from functools import cached_property

from tokenizers import Encoding, Tokenizer, pre_tokenizers

AS_TEXT = {"add_special_tokens": False, "split_special_tokens": True}


class PlainText:
    """Encoder that never produces a special token or a mark of a template, whatever the text is.

    `split_special_tokens` is not sufficient. It has no effect on added tokens that a tokenizer file declares as
    ordinary (often `<think>`), and on special tokens that are pieces of the model's vocabulary, where a unigram model
    finds `</s>` like any other piece.

    Args:
        tokenizer: tokenizer of `models.tokenizer.load_tokenizer`.
        is_mark: function from the text of an added token to whether it is a mark.
    """

    def __init__(self, tokenizer, is_mark):
        self.tokenizer, self.is_mark = tokenizer, is_mark
        added = tokenizer.added_tokens_decoder.items()
        self.names = {i: token.content for i, token in added if token.special or is_mark(token.content)}

    def __call__(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, and the (start, end) of each token in the text."""
        encoding = self.tokenizer(text, **AS_TEXT).encodings[0]
        if self.names.keys().isdisjoint(encoding.ids) or not self._special_positions(text, encoding):
            return encoding.ids, encoding.offsets
        encoding = self._splitting_tokenizer.encode(text, add_special_tokens=False)
        ids, spans, special = [], [], set(self._special_positions(text, encoding))
        for position, (token, (start, end)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True)):
            if position not in special:
                ids.append(token)
                spans.append((start, end))
                continue
            for letter in self.names[token]:
                letter_ids = [piece.id for piece in self._splitting_tokenizer.model.tokenize(letter)]
                ids += letter_ids
                spans += [(start, end)] * len(letter_ids)
        return ids, spans

    @cached_property
    def inner(self) -> "PlainText":
        """Encoder of text that does not begin a sequence: some tokenizers (Llama 2's) add no space to it."""
        if not _steps_at_start(self.tokenizer):
            return self
        tokenizer = deepcopy(self.tokenizer)
        for step in _steps_at_start(tokenizer):
            step.prepend_scheme = "never"
        return PlainText(tokenizer, self.is_mark)

    def _special_positions(self, text: str, encoding: Encoding) -> list[int]:
        """Positions of special tokens; `<unk>` counts where the text has it, not where it replaces a character."""
        unknown = self.tokenizer.unk_token_id
        return [
            position
            for position, (token, (start, end)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True))
            if token in self.names and (token != unknown or text[start:end].strip() == self.names[token])
        ]

    @cached_property
    def _splitting_tokenizer(self) -> Tokenizer:
        """Tokenizer that splits all special tokens and marks; built when a text has one for the first time."""
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for token in state["added_tokens"]:
            token["special"] = token["special"] or bool(self.is_mark(token["content"]))
        tokenizer = Tokenizer.from_str(json.dumps(state))
        tokenizer.encode_special_tokens = True
        return tokenizer


def _steps_at_start(tokenizer) -> list[pre_tokenizers.Metaspace]:
    """The steps of a tokenizer that add a space in front of a text at the beginning of a sequence alone."""
    steps = tokenizer.backend_tokenizer.pre_tokenizer
    steps = steps if isinstance(steps, pre_tokenizers.Sequence) else [steps]
    return [step for step in steps if getattr(step, "prepend_scheme", None) == "first"]
