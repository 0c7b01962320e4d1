"""Text from a running generation, as it comes, from a thread that ends when nobody listens any more."""

import queue
import threading
from collections.abc import Callable, Iterator

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextPieces(BaseStreamer):
    """Turns the token ids of one generated row into pieces of text on a queue.

    All ids so far are decoded again at each step, since the text of a token can depend on those before it; what
    ends in a part of a character (several tokens of one byte each) is held back until the character is complete.
    Bytes that turn out to be no character can take the characters before them along (a run of bytes is decoded as a
    whole): what was sent stays, and decoding starts anew behind it.

    Args:
        tokenizer: decodes the ids; special tokens are left out.
        pieces: receives the pieces, str.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, pieces: queue.Queue):
        self.tokenizer = tokenizer
        self.pieces = pieces
        self.ids: list[int] = []
        self.sent_ids, self.sent = 0, ""  # of `ids`: how many of them, and their text
        self.whole = True  # whether `ids` begin where the answer does
        self.prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt (first call, left out) or the next token's id."""
        if not self.prompt_seen:
            self.prompt_seen = True
            return
        self.ids += value.flatten().tolist()
        text = self._text()
        if not text.endswith(UNFINISHED):
            self._send(text)

    def end(self) -> None:
        """Send what was held back: the generation is over."""
        self._send(self._text())

    def _text(self) -> str:
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.lstrip() if self.whole else text

    def _send(self, text: str) -> None:
        if not text.startswith(self.sent):
            self.ids, self.sent, self.whole = self.ids[self.sent_ids :], "", False
            text = self._text()
        if text != self.sent:
            self.pieces.put(text[len(self.sent) :])
        self.sent_ids, self.sent = len(self.ids), text


class StopWhen(StoppingCriteria):
    """Ends a generation at its next token once the event is set."""

    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        """Say for each row (B,) whether it is over. ``**kwargs`` is what transformers passes to every criterion."""
        return torch.full((input_ids.shape[0],), self.event.is_set(), dtype=torch.bool, device=input_ids.device)


def stream_text(generate: Callable, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Yield the text of one generated row in pieces, with white space at its start left out.

    ``generate`` runs in a thread of its own and is called with ``streamer`` and ``stopping_criteria`` as
    transformers' generate takes them. When the consumer closes this iterator, the generation is told to stop and
    waited for, so that the model is free afterwards. An exception of ``generate`` is raised here.
    """
    pieces: queue.Queue = queue.Queue()
    stop = threading.Event()

    def work() -> None:
        try:
            # The inference mode of the calling thread does not reach this one.
            with torch.inference_mode():
                criteria = StoppingCriteriaList([StopWhen(stop)])
                generate(streamer=TextPieces(tokenizer, pieces), stopping_criteria=criteria)
        except Exception as error:
            pieces.put(error)
        finally:
            pieces.put(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece
    finally:
        stop.set()
        thread.join()
