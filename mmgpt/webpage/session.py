"""Session of one visitor of the page: a conversation that can be stopped, retried, edited and undone, within limits."""

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mmgpt.apis.chat import Chat
from mmgpt.apis.conversation import Conversation
from mmgpt.compat.python_names import renamed_arguments
from mmgpt.datasets.untrusted_images import ImageLimits, open_image
from mmgpt.inference.answer import Answer

from .generation_settings import GenerationSettings


class Turn(NamedTuple):
    """A question, its images (RGB), and its answer; '' before it has one."""

    question: str
    images: tuple[Image.Image, ...] = ()
    answer: str = ""


@renamed_arguments(pictures="images", all_pictures="all_images", picture="image")
@dataclass(frozen=True)
class Limits:
    """Limits of one conversation.

    Attributes:
        turns: number of questions.
        images: number of images of one question.
        all_images: number of images of the whole conversation.
        characters: of a question.
        side: pixels of an image's longer side; a larger image is made smaller, which saves memory.
        image: limits of an image file.
    """

    turns: int = 50
    images: int = 8
    all_images: int = 16
    characters: int = 20_000
    side: int = 768
    image: ImageLimits = ImageLimits()


# Decoding one image may take a gigabyte for a moment, so that only two images of all visitors are decoded at once.
_DECODERS = threading.BoundedSemaphore(2)


class Session:
    """One visitor's conversation, and the answer that is being generated. Threads may share it.

    A turn that fails, or whose answer is empty, leaves the conversation as it was.

    Attributes:
        turns: the answered turns.
        pending: the turns up to the question that is being answered; None while no answer is running.
        edited: index of the turn that the next question replaces, with all after it; None: the question is appended.
        answer: the running answer, or the last one.
    """

    def __init__(self, chat: Chat, limits: Limits = Limits()):  # noqa: B008 (frozen)
        self.chat, self.limits = chat, limits
        self.turns: tuple[Turn, ...] = ()
        self.pending: tuple[Turn, ...] | None = None
        self.edited: int | None = None
        self.answer: Answer | None = None
        self.scope = secrets.token_hex(8)  # keeps this conversation's cached prefixes from other visitors' questions
        self._lock = threading.Lock()

    def ask(self, question: str, files: Sequence[str | Path], settings: GenerationSettings) -> Iterator[str]:
        """Yield the text of the answer so far: '' as soon as the question waits for the model, then longer texts.

        Raises:
            ValueError: the question is empty or too large, an image cannot be read or is one too many, the conversation
                is full, another answer is running, the answer is empty, or `Chat.submit` raises it.
            Busy: too many questions wait.
        """

        def read_turn() -> tuple[int | None, Turn]:
            limits, images = self.limits, []
            if not question.strip():
                raise ValueError("The question is empty.")
            if len(question) > limits.characters:
                raise ValueError(
                    f"The question has {len(question)} characters: at most {limits.characters} are accepted."
                )
            if len(files) > limits.images:
                raise ValueError(f"{len(files)} images: at most {limits.images} go with a question.")
            for number, file in enumerate(files, 1):
                try:
                    with _DECODERS:
                        image = open_image(Path(file), limits.image)
                        image.thumbnail((limits.side, limits.side))
                except OSError as error:
                    raise ValueError(f"Image {number} is gone: attach it again.") from error
                except ValueError as error:
                    raise ValueError(f"Image {number}: {error}.") from error
                images.append(image)
            return self.edited, Turn(question, tuple(images))

        yield from self._generate(read_turn, settings)

    def retry(self, index: int, settings: GenerationSettings) -> Iterator[str]:
        """Answer the question of a turn again, which drops all turns after it. Yields and raises as `ask` does."""
        yield from self._generate(lambda: (index, self._turn(index)), settings)

    def edit(self, index: int) -> Turn:
        """The turn that the next question is going to replace. ValueError as for `ask`."""
        with self._at_rest():
            turn, self.edited = self._turn(index), index
        return turn

    def cancel_edit(self) -> None:
        """Append the next question instead of replacing a turn."""
        self.edited = None

    def undo(self) -> Turn:
        """Remove and return the last turn. ValueError when there is none, or an answer is running."""
        with self._at_rest():
            turn = self._turn(len(self.turns) - 1)
            self.turns, self.edited = self.turns[:-1], None
        return turn

    def clear(self) -> None:
        """Remove all turns, and stop a running answer."""
        self.stop()
        self.turns, self.pending, self.edited = (), None, None

    def stop(self) -> None:
        """Stop a running answer; its text so far stays."""
        if self.answer is not None:
            self.answer.cancel()

    def _generate(
        self, next_turn: Callable[[], tuple[int | None, Turn]], settings: GenerationSettings
    ) -> Iterator[str]:
        """Generate the answer of a turn.

        Args:
            next_turn: returns the turn and its index; None as index appends the turn.
        """
        with self._at_rest():
            # 1. The turns, within the limits.
            turns, limits = self.turns, self.limits
            index, turn = next_turn()
            self.pending = pending = (*turns[:index], turn._replace(answer=""))
            images = sum(len(turn.images) for turn in pending)
            try:
                if len(pending) > limits.turns:
                    raise ValueError(f"This conversation has {limits.turns} questions, no more fit: start a new one.")
                if images > limits.all_images:
                    raise ValueError(f"{images} images: a conversation holds at most {limits.all_images}.")
                self.answer = answer = settings.submit(self.chat, as_conversation(pending), self.scope)
                # 2. The text so far. Another thread may have cleared the conversation while images were read.
                if self.pending is not pending or self.turns is not turns:
                    return
                text = ""
                yield text
                for piece in answer:
                    text += piece.text
                    yield text
                # 3. The answered turn.
                if self.pending is not pending:
                    return
                if not text.strip():
                    raise ValueError("Stopped before the first word." if answer.cancelled else "The answer is empty.")
                self.turns, self.edited = (*pending[:-1], turn._replace(answer=text.strip())), None
            finally:
                self.stop()  # The visitor may have left; an answer that has ended stays as it is.
                self.pending = None

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Context manager that holds the session's lock. ValueError when an answer is running."""
        if not self._lock.acquire(blocking=False):
            raise ValueError("An answer is being written: stop it first.")
        try:
            yield
        finally:
            self._lock.release()

    def _turn(self, index: int) -> Turn:
        if not 0 <= index < len(self.turns):
            raise ValueError("There is no such question any more.")
        return self.turns[index]


def as_conversation(turns: Sequence[Turn]) -> Conversation:
    """Conversation for the chat from turns of the page; the last question is open if it has no answer."""
    conversation = Conversation()
    for turn in turns:
        conversation = conversation.with_question(turn.question, turn.images)
        if turn.answer:
            conversation.turns[-1]["answer"] = turn.answer
    return conversation
