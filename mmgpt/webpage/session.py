"""One visitor's conversation on the page: what can be done with it, and how much it may hold."""

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mmgpt.apis.chat import Chat, Conversation
from mmgpt.apis.pictures import PictureLimits, open_picture
from mmgpt.inference.answer import Answer

from .settings import Wanted


class Exchange(NamedTuple):
    """A question, the pictures (RGB) that belong to it, and its answer, as far as there is one."""

    text: str
    pictures: tuple[Image.Image, ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Limits:
    """How much one conversation may hold.

    Attributes:
        turns: questions.
        pictures: of one question.
        all_pictures: of the whole conversation.
        characters: of a question.
        side: pixels of a picture's longer side; a larger picture is made smaller, so that memory stays small.
        picture: what files are read at all.
    """

    turns: int = 50
    pictures: int = 8
    all_pictures: int = 16
    characters: int = 20_000
    side: int = 768
    picture: PictureLimits = PictureLimits()


# Pictures are decoded two at a time, whoever sends them: each may take a gigabyte for a moment.
_DECODERS = threading.BoundedSemaphore(2)


class Session:
    """What was said, and the answer that is being written. Its methods may be called from several threads.

    A turn that fails, or says nothing, leaves the conversation as it was.

    Attributes:
        exchanges: what was said.
        asked: the same with a last question that is being answered, without what it replaces; None at rest.
        edited: number of the exchange that the next question replaces, with all behind it; None: it follows them.
        answer: the running answer, or the last one.
    """

    def __init__(self, chat: Chat, limits: Limits = Limits()):  # noqa: B008 (frozen)
        self.chat, self.limits = chat, limits
        self.exchanges: tuple[Exchange, ...] = ()
        self.asked: tuple[Exchange, ...] | None = None
        self.edited: int | None = None
        self.answer: Answer | None = None
        self.scope = secrets.token_hex(8)  # nobody else's questions start from what is kept of this conversation
        self._busy = threading.Lock()

    def ask(self, text: str, files: Sequence[str | Path], wanted: Wanted) -> Iterator[str]:
        """Yield the answer as it grows: '' as soon as the question waits for the model, then ever more text.

        Raises:
            ValueError: the question is empty or too large, a picture cannot be read or is one too many, there is no
                room for another question, an answer is being written, the model says nothing, or as `Chat.submit`.
            Busy: too many questions wait.
        """
        yield from self._alone(lambda: (self.edited, self._read(text, files)), wanted)

    def retry(self, number: int, wanted: Wanted) -> Iterator[str]:
        """Answer a question again, which forgets what came after it. Yields and raises as `ask` does."""
        yield from self._alone(lambda: (number, self._exchange(number)), wanted)

    def edit(self, number: int) -> Exchange:
        """An exchange whose question is going to be replaced by the next one. ValueError as for `ask`."""
        with self._at_rest():
            exchange, self.edited = self._exchange(number), number
        return exchange

    def keep(self) -> None:
        """The next question replaces nothing."""
        self.edited = None

    def undo(self) -> Exchange:
        """Take the last exchange back. ValueError when there is none, or an answer is being written."""
        with self._at_rest():
            exchange = self._exchange(len(self.exchanges) - 1)
            self.exchanges, self.edited = self.exchanges[:-1], None
        return exchange

    def clear(self) -> None:
        """Forget everything; an answer that is being written ends."""
        self.stop()
        self.exchanges, self.asked, self.edited = (), None, None

    def stop(self) -> None:
        """End the answer that is being written: the model stops, what it said stays."""
        if self.answer is not None:
            self.answer.cancel()

    def _alone(self, question: Callable[[], tuple[int | None, Exchange]], wanted: Wanted) -> Iterator[str]:
        with self._at_rest():
            before = self.exchanges
            number, exchange = question()
            self.asked = asked = (*before[:number], exchange._replace(answer=""))
            try:
                self._check_room(asked)
                # Both take a while, in which everything may have been forgotten.
                answer = wanted.submit(self.chat, as_conversation(asked), self.scope)
                self.answer = answer
                if self.asked is asked and self.exchanges is before:
                    yield from self._said(answer, asked)
            finally:
                self.stop()  # of one whose reader went away; one that is over stays as it is
                self.asked = None

    def _said(self, answer: Answer, asked: tuple[Exchange, ...]) -> Iterator[str]:
        said = ""
        yield said
        for piece in answer:
            said += piece.text
            yield said
        if self.asked is not asked:  # forgotten meanwhile
            return
        if not said.strip():
            raise ValueError("Stopped before the first word." if answer.cancelled else "The model said nothing.")
        self.exchanges, self.edited = (*asked[:-1], asked[-1]._replace(answer=said.strip())), None

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise ValueError("An answer is being written: stop it first.")
        try:
            yield
        finally:
            self._busy.release()

    def _exchange(self, number: int) -> Exchange:
        if not 0 <= number < len(self.exchanges):
            raise ValueError("There is no such question any more.")
        return self.exchanges[number]

    def _read(self, text: str, files: Sequence[str | Path]) -> Exchange:
        limits = self.limits
        if not text.strip():
            raise ValueError("The question is empty.")
        if len(text) > limits.characters:
            raise ValueError(f"The question has {len(text)} characters: at most {limits.characters} are accepted.")
        if len(files) > limits.pictures:
            raise ValueError(f"{len(files)} pictures: at most {limits.pictures} go with a question.")
        return Exchange(text, tuple(self._open(number, file) for number, file in enumerate(files, 1)))

    def _open(self, number: int, file: str | Path) -> Image.Image:
        try:
            with _DECODERS:
                picture = open_picture(Path(file), self.limits.picture)
                picture.thumbnail((self.limits.side, self.limits.side))
                return picture
        except OSError as error:
            raise ValueError(f"Picture {number} is gone: attach it again.") from error
        except ValueError as error:
            raise ValueError(f"Picture {number}: {error}.") from error

    def _check_room(self, asked: Sequence[Exchange]) -> None:
        pictures, limits = sum(len(exchange.pictures) for exchange in asked), self.limits
        if len(asked) > limits.turns:
            raise ValueError(f"This conversation has {limits.turns} questions, no more fit: start a new one.")
        if pictures > limits.all_pictures:
            raise ValueError(f"{pictures} pictures: a conversation holds at most {limits.all_pictures}.")


def as_conversation(exchanges: Sequence[Exchange]) -> Conversation:
    """Exchanges as the chat takes them; the last answer is open."""
    conversation = Conversation()
    for exchange in exchanges:
        conversation = conversation.asked(exchange.text, exchange.pictures)
        if exchange.answer:
            conversation.turns[-1]["answer"] = exchange.answer
    return conversation
