"""The chat page: its parts, and what happens when they are used."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import gradio as gr
from PIL import Image

from mmgpt.apis.chat import Chat
from mmgpt.apis.templates import chat_templates
from mmgpt.inference.answer import Busy

from . import view
from .parts import QUIET, Parts, place
from .session import Limits, Session
from .settings import defaults, read_settings

PACE = 0.05  # seconds between two looks of a growing answer
KEPT = 3600  # seconds that an uploaded file is kept
IDLE = 24 * 3600  # seconds that the conversation of an open page is kept; Gradio forgets a closed page's after one hour
WAITING = 64  # questions that wait at most for one of the RUNNING to end
RUNNING = 32  # answers that are written at once; the chat's engine batches them
FAILED = "The model failed at this question. The reason is in the server's log; you can go on asking."

logger = logging.getLogger(__name__)


class Page:
    """A page where visitors talk to one chat, each for themselves.

    Args:
        chat: answers.
        title: shown on top.
        examples: first questions to click on.
        limits: of each visitor's conversation.

    Attributes:
        blocks: what Gradio serves.
        parts: what stands on it.
        session: each visitor's `Session`; None before the first question.
    """

    def __init__(self, chat: Chat, title: str, examples: Sequence[view.Example] = (), limits: Limits = Limits()):  # noqa: B008
        self.chat, self.title, self.examples, self.limits = chat, title, tuple(examples), limits
        with gr.Blocks(title=title, delete_cache=(KEPT // 10, KEPT), analytics_enabled=False) as self.blocks:
            self.session = gr.State(None, time_to_live=IDLE, delete_callback=_forget)
            self.parts = place(title, self.examples, defaults(chat), chat_templates(chat), limits.characters)
            self._connect(self.parts)
        self.blocks.queue(max_size=WAITING, default_concurrency_limit=RUNNING)

    def _connect(self, parts: Parts) -> None:
        settings, shown = [self.session, *parts.settings], [self.session, parts.talk, parts.now, parts.notice]
        shown += [parts.box, parts.figures, parts.prompt]
        slow = dict(concurrency_id="model", api_visibility="private")
        slow |= dict(show_progress="minimal", show_progress_on=parts.figures)
        parts.box.submit(self._ask, [self.session, parts.box, *parts.settings], shown, **slow)
        parts.talk.example(self._example, settings, shown, **slow)
        parts.talk.retry(self._retry, settings, shown, **slow)
        parts.box.stop(self._stop, self.session, None, **QUIET)
        parts.box.stop(None, None, None, js="() => document.querySelector('#box textarea').focus()")
        parts.talk.edit(self._edit, self.session, shown, **QUIET)
        parts.talk.undo(self._undo, self.session, shown, **QUIET)
        parts.notice.keep(self._keep, self.session, shown, **QUIET)
        parts.new.click(self._clear, self.session, shown, **QUIET)
        parts.copy.click(None, None, None, js="() => copyConversation()")
        for button, make in ((parts.as_page, self._as_page), (parts.as_data, self._as_data)):
            made = button.click(make, self.session, parts.file, **QUIET)
            made.success(None, parts.file, None, js="(file) => saveFile(file)")

    def _ask(self, session: Session | None, message: dict, *settings) -> Iterator[dict]:
        session = session or self._new()
        texts = self._texts(session.ask, message["text"], message["files"], settings=settings)
        yield from self._show(session, texts, empty_box=True, given_back=message)

    def _example(self, session: Session | None, event: gr.EventData, *settings) -> Iterator[dict]:
        session = session or self._new()
        number = _number(event)
        example = self.examples[number] if 0 <= number < len(self.examples) else view.Example("")
        yield from self._show(session, self._texts(session.ask, *example, settings=settings))

    def _retry(self, session: Session | None, event: gr.EventData, *settings) -> Iterator[dict]:
        session = session or self._new()
        yield from self._show(session, self._texts(session.retry, _number(event), settings=settings))

    def _texts(self, ask: Callable, *question, settings: Sequence) -> Iterator[str]:
        """What `ask` of a session yields, with the page's settings."""
        *values, seed, template, start = settings
        wanted = read_settings(self.chat, values, seed, template, start)
        yield from ask(*question, wanted)

    def _show(self, session: Session, texts: Iterator[str], empty_box: bool = False, given_back: dict | None = None):
        """Yield the updates of the page while an answer is written; `given_back` fills the box when it fails."""
        writing, problem = False, ""
        try:
            with closing(texts):
                for said in _paced(texts):
                    if not writing:
                        writing = True
                        yield self._begun(session, empty_box)
                    yield {self.parts.now: view.now(session.asked, said)}
        except (ValueError, Busy) as error:
            problem = str(error)
        except Exception:
            logger.exception("an answer failed")
            problem = FAILED
        box = dict(submit_btn=True, stop_btn=False)
        if problem and writing and given_back:
            box["value"] = given_back
        told = {self.parts.figures: view.figures(session.answer)} if writing and session.exchanges else {}
        yield {**self._rest(session, problem), self.parts.box: gr.update(**box), **told}

    def _begun(self, session: Session, empty_box: bool) -> dict:
        """The page once a question is asked."""
        box = dict(value=None) if empty_box else {}
        return {
            self.session: session,
            self.parts.talk: view.talk((session.asked or ())[:-1]),
            self.parts.notice: "",
            self.parts.box: gr.update(submit_btn=False, stop_btn=True, **box),
            self.parts.prompt: session.answer.prompt,
        }

    def _rest(self, session: Session, problem: str = "") -> dict:
        """The page when no answer is written."""
        return {
            self.session: session,
            self.parts.talk: view.talk(session.exchanges, session.edited, self.examples),
            self.parts.now: "",
            self.parts.notice: view.notice(problem) or self._replacing(session),
        }

    @staticmethod
    def _replacing(session: Session) -> str:
        if session.edited is None:
            return ""
        number = session.edited + 1
        return view.notice(f"Your next question replaces question {number} and all behind it.", "Keep them")

    def _stop(self, session: Session | None) -> None:
        if session is not None:
            session.stop()

    def _edit(self, session: Session | None, event: gr.EventData) -> dict:
        return self._take(session, lambda session: session.edit(_number(event)))

    def _undo(self, session: Session | None) -> dict:
        return self._take(session, Session.undo)

    def _take(self, session: Session | None, take: Callable) -> dict:
        """The page after a question went back into the box."""
        session = session or self._new()
        try:
            exchange = take(session)
        except ValueError as error:
            return {self.parts.notice: view.notice(str(error))}
        return {**self._rest(session), self.parts.box: {"text": exchange.text, "files": _files(exchange.pictures)}}

    def _keep(self, session: Session | None) -> dict:
        session = session or self._new()
        session.keep()
        return {**self._rest(session), self.parts.box: None}

    def _clear(self, session: Session | None) -> dict:
        session = session or self._new()
        session.clear()
        return {
            **self._rest(session),
            self.parts.box: gr.update(value=None),
            self.parts.figures: "",
            self.parts.prompt: "",
        }

    def _as_page(self, session: Session | None) -> dict:
        text = view.saved_page(session.exchanges if session else (), self.title)
        return {"name": "conversation.html", "type": "text/html", "text": text}

    def _as_data(self, session: Session | None) -> dict:
        text = view.saved_data(session.exchanges if session else ())
        return {"name": "conversation.json", "type": "application/json", "text": text}

    def _new(self) -> Session:
        return Session(self.chat, self.limits)


def _paced(texts: Iterator[str]) -> Iterator[str]:
    """The latest of some growing texts, at most one each PACE, and the last one."""
    shown, text, last = float("-inf"), None, None
    for text in texts:
        if time.monotonic() - shown >= PACE:
            shown, last = time.monotonic(), text
            yield text
    if text is not last:
        yield text


def _files(pictures: Sequence[Image.Image]) -> list[str]:
    """Pictures as files for the box, in a folder of their own in Gradio's, which is private."""
    folder = tempfile.mkdtemp(dir=gr.utils.get_upload_folder())
    files = [f"{folder}/picture {number}.png" for number in range(1, len(pictures) + 1)]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file)
    return files


def _number(event: gr.EventData) -> int:
    """The number of the exchange or example that a button belongs to; -1 for anything else."""
    number = event._data.get("number") if isinstance(event._data, dict) else None
    return number if isinstance(number, int) else -1


def _forget(session: Session | None) -> None:
    if session is not None:
        session.clear()
