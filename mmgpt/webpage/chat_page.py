"""The chat page: a gr.Blocks with the page's components, and the handlers of their events."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import gradio as gr

from mmgpt.apis.chat import Chat
from mmgpt.apis.templates import chat_templates, template_start
from mmgpt.inference.answer import Busy

from . import rendering
from .generation_settings import read_settings, slider_defaults
from .layout import IMMEDIATE, add_components
from .session import Limits, Session, Turn

UPDATE_INTERVAL = 0.05  # seconds between two updates of a streamed answer
UPLOAD_LIFETIME = 3600  # seconds
SESSION_LIFETIME = 24 * 3600  # seconds without use; Gradio drops the session of a closed page after one hour
MAX_QUEUED = 64  # questions that wait for one of MAX_RUNNING to end
MAX_RUNNING = 32  # answers at once, which the chat batches
FAILURE = "The model failed at this question. The reason is in the server's log; you can go on asking."

logger = logging.getLogger(__name__)


class ChatPage:
    """A page where every visitor has a conversation of their own with the same chat.

    Args:
        chat: answers the questions.
        title: shown on top.
        examples: first questions to click on.
        limits: of each visitor's conversation.

    Attributes:
        blocks: the gr.Blocks that Gradio serves.
        components: its components.
        session: state with each visitor's `Session`; None before the first question.
        failed: state with the question from the box whose answer failed last, as the box's value; None after a success.
    """

    def __init__(self, chat: Chat, title: str, examples: Sequence[rendering.Example] = (), limits: Limits = Limits()):  # noqa: B008
        self.chat, self.title, self.examples, self.limits = chat, title, tuple(examples), limits
        cleanup = (UPLOAD_LIFETIME // 10, UPLOAD_LIFETIME)
        with gr.Blocks(title=title, delete_cache=cleanup, analytics_enabled=False) as self.blocks:
            self.session = gr.State(
                None, time_to_live=SESSION_LIFETIME, delete_callback=lambda session: session and session.clear()
            )
            self.failed = gr.State(None)
            starts = {name: template_start(chat, template) for name, template in chat_templates(chat).items()}
            self.components = components = add_components(
                title, self.examples, slider_defaults(chat), starts, limits.characters
            )
            settings = [self.session, *components.settings]
            outputs = [self.session, components.turns, components.pending, components.notice]
            outputs += [components.box, components.stats, components.prompt]
            queued = dict(concurrency_id="model", api_visibility="private")
            queued |= dict(show_progress="minimal", show_progress_on=components.stats)
            question = [self.session, components.box, *components.settings]
            # Enter during an answer takes effect when that answer has ended; by default Gradio would ignore it.
            asked = [*outputs, self.failed]
            event = components.box.submit(self.ask, question, asked, trigger_mode="always_last", **queued)
            event.then(self.put_back, [self.failed, components.box], components.box, **IMMEDIATE)
            components.turns.example(self.answer_example, settings, outputs, **queued)
            components.turns.retry(self.retry, settings, outputs, **queued)
            components.box.stop(self.stop, self.session, None, **IMMEDIATE)
            components.box.stop(None, None, None, js="() => document.querySelector('#box textarea').focus()")
            components.turns.edit(self.edit, self.session, outputs, **IMMEDIATE)
            components.turns.undo(self.undo, self.session, outputs, **IMMEDIATE)
            components.notice.keep(self.cancel_edit, self.session, outputs, **IMMEDIATE)
            components.new.click(self.clear, self.session, outputs, **IMMEDIATE)
            components.copy.click(None, None, None, js="() => copyConversation()")
            for button, handler in ((components.save_page, self.save_page), (components.save_json, self.save_json)):
                event = button.click(handler, self.session, components.file, **IMMEDIATE)
                event.success(None, components.file, None, js="(file) => saveFile(file)")
        self.blocks.queue(max_size=MAX_QUEUED, default_concurrency_limit=MAX_RUNNING)

    def ask(self, session: Session | None, message: dict, *settings) -> Iterator[dict]:
        """Handler of a question from the box."""
        if not message["text"] and not message["files"]:  # Enter was pressed twice: the box is empty the second time.
            yield {self.failed: None}
            return
        session = session or self._new_session()
        texts = self._texts(session.ask, message["text"], message["files"], settings=settings)
        yield from self._updates(session, texts, message)

    def put_back(self, failed: dict | None, message: dict) -> dict:
        """Handler of the end of an answer: a failed question goes back into the box, unless another one waits there."""
        return gr.skip() if failed is None or message["text"] or message["files"] else failed

    def answer_example(self, session: Session | None, event: gr.EventData, *settings) -> Iterator[dict]:
        """Handler of a click on an example."""
        session = session or self._new_session()
        index = _index(event)
        example = self.examples[index] if 0 <= index < len(self.examples) else rendering.Example("")
        yield from self._updates(session, self._texts(session.ask, *example, settings=settings))

    def retry(self, session: Session | None, event: gr.EventData, *settings) -> Iterator[dict]:
        """Handler of a Retry button."""
        session = session or self._new_session()
        yield from self._updates(session, self._texts(session.retry, _index(event), settings=settings))

    def _texts(self, generate: Callable, *arguments, settings: Sequence) -> Iterator[str]:
        """Yield the text so far of `Session.ask` or `Session.retry`, with the settings of the page's controls."""
        *values, seed, template, start = settings
        yield from generate(*arguments, read_settings(self.chat, values, seed, template, start))

    def _updates(self, session: Session, texts: Iterator[str], message: dict | None = None) -> Iterator[dict]:
        """Yield updates of the components while an answer is streamed.

        Args:
            texts: the text of the answer so far, again and again.
            message: content of the box if the question came from there; after a failure it becomes `failed`.
        """
        components, started, problem = self.components, False, ""
        try:
            with closing(texts):
                for text in throttled(texts, UPDATE_INTERVAL):
                    if not started:
                        started = True
                        yield {
                            self.session: session,
                            components.turns: rendering.turns_html((session.pending or ())[:-1]),
                            components.notice: "",
                            components.box: gr.update(
                                submit_btn=False, stop_btn=True, **({"value": None} if message else {})
                            ),
                            components.prompt: session.answer.prompt,
                        }
                    yield {components.pending: rendering.pending_html(session.pending, text)}
        except (ValueError, Busy) as error:
            problem = str(error)
        except Exception:
            logger.exception("an answer failed")
            problem = FAILURE
        updates = self._updates_at_rest(session, problem)
        updates[components.box] = gr.update(submit_btn=True, stop_btn=False)
        if message:
            updates[self.failed] = message if problem and started else None
        if started and session.turns:
            updates[components.stats] = rendering.answer_stats(session.answer)
        yield updates

    def _updates_at_rest(self, session: Session, problem: str = "") -> dict:
        """Updates of the components when no answer is running."""
        notice = rendering.notice_html(problem)
        if not problem and session.edited is not None:
            text = f"Your next question replaces question {session.edited + 1} and all after it."
            notice = rendering.notice_html(text, "Keep them")
        return {
            self.session: session,
            self.components.turns: rendering.turns_html(session.turns, session.edited, self.examples),
            self.components.pending: "",
            self.components.notice: notice,
        }

    def stop(self, session: Session | None) -> None:
        """Handler of the stop button."""
        if session is not None:
            session.stop()

    def edit(self, session: Session | None, event: gr.EventData) -> dict:
        """Handler of an Edit button."""
        return self._put_into_box(session, lambda session: session.edit(_index(event)))

    def undo(self, session: Session | None) -> dict:
        """Handler of the Undo button."""
        return self._put_into_box(session, Session.undo)

    def _put_into_box(self, session: Session | None, take_turn: Callable[[Session], Turn]) -> dict:
        """Updates that put the question of a turn back into the box."""
        session = session or self._new_session()
        try:
            turn = take_turn(session)
        except ValueError as error:
            return {self.components.notice: rendering.notice_html(str(error))}
        # Images go into a new folder within Gradio's folder of uploads, which is private.
        folder = tempfile.mkdtemp(dir=gr.utils.get_upload_folder())
        files = [f"{folder}/image {number}.png" for number in range(1, len(turn.images) + 1)]
        for image, file in zip(turn.images, files, strict=True):
            image.save(file)
        return {**self._updates_at_rest(session), self.components.box: {"text": turn.question, "files": files}}

    def cancel_edit(self, session: Session | None) -> dict:
        """Handler of the button that keeps the turns being replaced."""
        session = session or self._new_session()
        session.cancel_edit()
        return {**self._updates_at_rest(session), self.components.box: None}

    def clear(self, session: Session | None) -> dict:
        """Handler of "New chat"."""
        session = session or self._new_session()
        session.clear()
        empty = {self.components.stats: "", self.components.prompt: ""}
        return {**self._updates_at_rest(session), self.components.box: gr.update(value=None), **empty}

    def save_page(self, session: Session | None) -> dict:
        """Handler of "Save page"."""
        text = rendering.saved_page(session.turns if session else (), self.title)
        return {"name": "conversation.html", "type": "text/html", "text": text}

    def save_json(self, session: Session | None) -> dict:
        """Handler of "Save JSON"."""
        text = rendering.saved_json(session.turns if session else ())
        return {"name": "conversation.json", "type": "application/json", "text": text}

    def _new_session(self) -> Session:
        return Session(self.chat, self.limits)


def throttled(texts: Iterator[str], interval: float) -> Iterator[str]:
    """Yield the newest of a stream of texts at most every `interval` seconds, and always the last one."""
    yielded_at, text, yielded = float("-inf"), None, None
    for text in texts:
        if time.monotonic() - yielded_at >= interval:
            yielded_at, yielded = time.monotonic(), text
            yield text
    if text is not yielded:
        yield text


def _index(event: gr.EventData) -> int:
    """Index of the turn or example that a button belongs to; -1 for anything else."""
    index = event._data.get("index") if isinstance(event._data, dict) else None
    return index if isinstance(index, int) else -1
