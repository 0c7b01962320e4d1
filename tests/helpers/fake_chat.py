"""A chat whose answers are known: it says the question again, word by word, and how many pictures it saw."""

import threading
import time
from collections import Counter

from mmgpt.apis import Conversation
from mmgpt.apis.chat import read_conversation
from mmgpt.datasets.conversation import question_text
from mmgpt.datasets.transforms import FormatPrompt
from mmgpt.inference.answer import Answer, Busy, Piece, Token

BUSY, FAIL, SLOW = "busy", "fail", "slow"  # what a question says to be turned away, to fail, to be answered slowly


class FakeChat:
    """`Chat.submit` without a model; `asked` holds (conversation, generation, seed) of each question."""

    def __init__(self):
        self.asked, self.did = [], Counter()  # shared with copies that have another template
        self.generation = {"max_new_tokens": 64}
        self.pipeline = [FormatPrompt("short", open_last=True)]

    @property
    def running(self) -> int:
        """How many answers are being given."""
        return self.did["begun"] - self.did["ended"]

    @property
    def stopped(self) -> int:
        """How many answers were stopped."""
        return self.did["stopped"]

    def settings_in_force(self) -> dict:
        """Same as Chat's."""
        return {"do_sample": False, **self.generation}

    def start(self) -> Conversation:
        """A new conversation."""
        return Conversation()

    def submit(
        self, conversation, generation=None, *, seed=None, stop=(), top_logprobs=None, listener=None, scope=""
    ) -> Answer:
        """Same as Chat's."""
        text = question_text(conversation.turns[-1]["question"])
        if not text.strip():
            raise ValueError("the question is empty")
        if BUSY in text:
            raise Busy("4 questions wait already")
        self.asked.append((conversation, generation, seed))
        answer = Answer(read_conversation(conversation, self.pipeline)["prompt"], listener)
        answer.prompt_tokens = len(text.split())
        threading.Thread(target=self._say, args=(answer, text, len(conversation.images)), daemon=True).start()
        return answer

    def _say(self, answer: Answer, text: str, images: int) -> None:
        self.did["begun"] += 1
        words = [*text.split(), str(images), "pictures"] * (50 if SLOW in text else 1)
        for number, word in enumerate(words):
            if answer.cancelled:
                self.did["stopped"] += 1
                break
            if SLOW in text:
                time.sleep(0.05)
            answer.count()
            answer.put(Piece(" " * (number > 0) + word, (Token(number, word, -0.5),)))
        self.did["ended"] += 1
        if FAIL in text:
            return answer.fail(RuntimeError("the model is broken"))
        answer.end("cancelled" if answer.cancelled else "stop")
