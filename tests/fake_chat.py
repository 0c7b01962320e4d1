"""A chat whose answers are known: it says the question again, word by word, and how many pictures it saw."""

import threading
import time

from mmgpt.apis import Conversation
from mmgpt.apis.answer import Answer, Busy, Piece, Token
from mmgpt.datasets.conversation import question_text

BUSY, FAIL, SLOW = "busy", "fail", "slow"  # what a question says to be turned away, to fail, to be answered slowly


class FakeChat:
    """`Chat.submit` without a model; `running` and `stopped` tell what its answers did."""

    def __init__(self):
        self.running, self.stopped = 0, 0

    def start(self) -> Conversation:
        """A new conversation."""
        return Conversation()

    def submit(self, conversation, generation=None, *, seed=None, stop=(), top_logprobs=None, listener=None) -> Answer:
        """As Chat's."""
        text = question_text(conversation.turns[-1]["question"])
        if not text.strip():
            raise ValueError("the question is empty")
        if BUSY in text:
            raise Busy("4 questions wait already")
        answer = Answer(f"### Instruction:\n{text}", listener)
        answer.prompt_tokens = len(text.split())
        threading.Thread(target=self._say, args=(answer, text, len(conversation.images)), daemon=True).start()
        return answer

    def _say(self, answer: Answer, text: str, images: int) -> None:
        self.running += 1
        words = [*text.split(), str(images), "pictures"] * (50 if SLOW in text else 1)
        for number, word in enumerate(words):
            if answer.cancelled:
                self.stopped += 1
                break
            if SLOW in text:
                time.sleep(0.05)
            answer.count()
            answer.put(Piece(" " * (number > 0) + word, (Token(number, word, -0.5),)))
        self.running -= 1
        if FAIL in text:
            return answer.fail(RuntimeError("the model is broken"))
        answer.end("cancelled" if answer.cancelled else "stop")
