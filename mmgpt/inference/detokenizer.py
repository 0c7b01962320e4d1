"""The text of an answer while its tokens come."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
WINDOW = 32  # tokens; what is decoded again for each new one, once an answer is longer


class Characters:
    """Turns the ids of an answer, one at a time, into whole characters.

    The latest ids are decoded again at each step, since the text of a token can depend on those before it; what ends in
    a part of a character (several tokens of one byte each) is held back until the character is complete. Bytes that
    turn out to be no character can take the characters before them along (a run of bytes is decoded as a whole): what
    was given stays, and decoding starts anew behind it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.given_ids, self.given = 0, ""  # of `ids`: how many of them were given, and their text

    def add(self, token: int) -> str:
        """What one more token makes certain; special tokens are left out."""
        self.ids.append(token)
        text = self._text(self.ids)
        return "" if text.endswith(UNFINISHED) else self._give(text)

    def rest(self) -> str:
        """What was held back: the answer is over."""
        return self._give(self._text(self.ids))

    def _text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _give(self, text: str) -> str:
        if not text.startswith(self.given):
            self.ids, self.given = self.ids[self.given_ids :], ""
            text = self._text(self.ids)
        new = text[len(self.given) :]
        self.given_ids, self.given = len(self.ids), text
        if len(self.ids) > 2 * WINDOW:
            self._shorten()
        return new

    def _shorten(self) -> None:
        """Forgets the first ids, up to one that begins a character."""
        for start in range(len(self.ids) - WINDOW, len(self.ids) - 1):
            text = self._text(self.ids[start:])
            if not text.startswith(UNFINISHED):
                self.ids, self.given = self.ids[start:], text
                self.given_ids = len(self.ids)
                return


class AnswerText:
    """Turns the ids of an answer into pieces of text that never have to be taken back.

    White space at both ends of the answer is left out, and a stop sequence with all that follows. So white space, and
    what may become a stop sequence, is held back until more text comes.

    Attributes:
        stopped: whether a stop sequence came.

    Args:
        tokenizer: of the model.
        stops: the stop sequences.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = ()):
        self.characters, self.stops = Characters(tokenizer), tuple(stops)
        self.held, self.begun, self.stopped = "", False, False

    def add(self, token: int) -> str:
        """What one more token adds."""
        return self._take(self.characters.add(token))

    def rest(self) -> str:
        """What was held back: the answer is over."""
        return self._take(self.characters.rest(), last=True)

    def _take(self, text: str, last: bool = False) -> str:
        if self.stopped:
            return ""
        self.held += text
        if not self.begun:
            self.held = self.held.lstrip()
        found = [place for stop in self.stops if (place := self.held.find(stop)) >= 0]
        self.stopped = bool(found)
        certain = min(found) if found else len(self.held) - (0 if last else self._maybe_stop())
        given = self.held[:certain].rstrip()
        self.held = self.held[len(given) :]
        self.begun |= bool(given)
        return given

    def _maybe_stop(self) -> int:
        """How many characters at the end of the held text may be the beginning of a stop sequence."""
        ends = (n for stop in self.stops for n in range(1, len(stop)) if self.held.endswith(stop[:n]))
        return max(ends, default=0)
