"""Fake chat without a model: it repeats the question word by word, and says how many images it got."""

import threading
import time
from collections import Counter

from mmgpt.apis.conversation import Conversation, read_conversation
from mmgpt.datasets.conversation import question_text
from mmgpt.datasets.transforms import FormatPrompt, PromptTooLong
from mmgpt.inference.answer import Answer, Busy, Piece, Token

# Words in a question that is refused, too long, fails, or is answered slowly.
BUSY, LONG, FAIL, SLOW = "busy", "too-long", "fail", "slow"


class FakeChat:
    """Stand-in for `Chat`; `submitted_questions` holds (conversation, generation, seed) of each question."""

    def __init__(self):
        # Copies with another template share these two.
        self.submitted_questions, self.counts = [], Counter()
        self.generation, self.adapters = {"max_new_tokens": 64}, ()
        self.pipeline = [FormatPrompt("short", open_last=True)]

    @property
    def running(self) -> int:
        """Number of running answers."""
        return self.counts["begun"] - self.counts["ended"]

    @property
    def stopped(self) -> int:
        """Number of stopped answers."""
        return self.counts["stopped"]

    def settings_in_force(self) -> dict:
        """Same as Chat's."""
        return {"do_sample": False, **self.generation}

    def start(self) -> Conversation:
        """A new conversation."""
        return Conversation()

    def submit(
        self,
        conversation,
        generation=None,
        *,
        seed=None,
        stop=(),
        top_logprobs=None,
        listener=None,
        scope="",
        adapter=None,
    ) -> Answer:
        """Same as Chat's."""
        text = question_text(conversation.turns[-1]["question"])
        if not text.strip():
            raise ValueError("the question is empty")
        if BUSY in text:
            raise Busy("4 questions wait already")
        if LONG in text:
            raise PromptTooLong("a prompt of 9000 tokens, the limit is 4095")
        self.submitted_questions.append((conversation, generation, seed))
        answer = Answer(read_conversation(conversation, self.pipeline)["prompt"], listener)
        answer.prompt_tokens = len(text.split())
        threading.Thread(target=self._answer, args=(answer, text, len(conversation.images)), daemon=True).start()
        return answer

    def _answer(self, answer: Answer, text: str, images: int) -> None:
        self.counts["begun"] += 1
        words = [*text.split(), str(images), "images"] * (50 if SLOW in text else 1)
        for number, word in enumerate(words):
            if answer.cancelled:
                self.counts["stopped"] += 1
                break
            if SLOW in text:
                time.sleep(0.05)
            answer.count()
            answer.put(Piece(" " * (number > 0) + word, (Token(number, word, -0.5),)))
        self.counts["ended"] += 1
        if FAIL in text:
            return answer.fail(RuntimeError("the model is broken"))
        answer.end("cancelled" if answer.cancelled else "stop")
