"""Streaming detokenizer: the text of an answer while its tokens are generated."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
WINDOW = 32  # number of last tokens that are decoded again for each new token of a longer answer


class IncrementalDetokenizer:
    """Streaming detokenizer that turns token ids, one at a time, into whole characters.

    The latest ids are decoded again at each step, since the text of a token can depend on the tokens before it. Text
    that ends within a character (several tokens of one byte each) is held back until the character is complete. A run
    of invalid bytes is decoded as a whole and can change the characters before it: emitted text stays, and decoding
    starts anew after it. (`tokenizers.decoders.DecodeStream` raises an exception there, and has no `flush`.)
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.emitted_ids, self.emitted = 0, ""  # number of `ids` that were emitted, and their text

    def add(self, token: int) -> str:
        """The text that one more token completes; special tokens are left out."""
        self.ids.append(token)
        text = self._decode(self.ids)
        return "" if text.endswith(UNFINISHED) else self._emit(text)

    def flush(self) -> str:
        """The text that was held back, at the end of the answer."""
        return self._emit(self._decode(self.ids))

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _emit(self, text: str) -> str:
        if not text.startswith(self.emitted):
            self.ids, self.emitted = self.ids[self.emitted_ids :], ""
            text = self._decode(self.ids)
        new = text[len(self.emitted) :]
        self.emitted_ids, self.emitted = len(self.ids), text
        if len(self.ids) > 2 * WINDOW:
            # The window begins at an id that begins a character.
            for start in range(len(self.ids) - WINDOW, len(self.ids) - 1):
                text = self._decode(self.ids[start:])
                if not text.startswith(UNFINISHED):
                    self.ids, self.emitted = self.ids[start:], text
                    self.emitted_ids = len(self.ids)
                    break
        return new


class AnswerDetokenizer:
    """Detokenizer of an answer: turns its token ids into pieces of text that are never taken back.

    White space around the answer is left out, and so is a stop sequence with everything behind it. White space, and the
    possible beginning of a stop sequence, is therefore held back until more text comes.

    Attributes:
        stopped: whether a stop sequence came.

    Args:
        tokenizer: of the model.
        stops: the stop sequences.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = ()):
        self.detokenizer, self.stops = IncrementalDetokenizer(tokenizer), tuple(stops)
        self.held, self.begun, self.stopped = "", False, False

    def add(self, token: int) -> str:
        """The text that one more token completes."""
        return self._emit(self.detokenizer.add(token))

    def flush(self) -> str:
        """The text that was held back, at the end of the answer."""
        return self._emit(self.detokenizer.flush(), last=True)

    def _emit(self, text: str, last: bool = False) -> str:
        if self.stopped:
            return ""
        self.held += text
        if not self.begun:
            self.held = self.held.lstrip()
        stop_indices = [index for stop in self.stops if (index := self.held.find(stop)) >= 0]
        self.stopped = bool(stop_indices)
        # The longest end of the text that is the beginning of a stop sequence.
        beginnings = (n for stop in self.stops for n in range(1, len(stop)) if self.held.endswith(stop[:n]))
        end = min(stop_indices) if stop_indices else len(self.held) - (0 if last else max(beginnings, default=0))
        piece = self.held[:end].rstrip()
        self.held = self.held[len(piece) :]
        self.begun |= bool(piece)
        return piece
