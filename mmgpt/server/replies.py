"""What the server sends: a whole answer, or the chunks of one."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmgpt.inference.answer import Answer, Piece, Token
from mmgpt.inference.detokenizer import UNFINISHED

LEAST = -9999.0  # for a log-probability of minus infinity, which JSON does not know


@dataclass(frozen=True)
class Reply:
    """The answer to one request, in OpenAI's shapes.

    Attributes:
        model: the name of the model.
        logprobs: whether tokens with their log-probabilities are part of it.
        with_usage: whether a stream ends with the usage.
    """

    model: str
    logprobs: bool = False
    with_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, pieces: Sequence[Piece], answer: Answer) -> dict:
        """The object ``chat.completion``."""
        message = dict(role="assistant", content="".join(piece.text for piece in pieces), refusal=None)
        tokens = [token for piece in pieces for token in piece.tokens]
        choice = self._choice("message", message, tokens, answer.finish_reason)
        return self._object("chat.completion", [choice], usage=usage(answer))

    def chunk(self, delta: dict, tokens: Sequence[Token] = (), finish_reason: str | None = None) -> dict:
        """An object ``chat.completion.chunk``."""
        choice = self._choice("delta", delta, tokens, finish_reason)
        return self._object("chat.completion.chunk", [choice], **({"usage": None} if self.with_usage else {}))

    def usage_chunk(self, answer: Answer) -> dict:
        """The last chunk of a stream with usage."""
        return self._object("chat.completion.chunk", [], usage=usage(answer))

    def _choice(self, key: str, content: dict, tokens: Sequence[Token], finish_reason: str | None) -> dict:
        logprobs = {"content": [_token(token) for token in tokens], "refusal": None} if self.logprobs else None
        return {"index": 0, key: content, "logprobs": logprobs, "finish_reason": finish_reason}

    def _object(self, kind: str, choices: list[dict], **more: dict | None) -> dict:
        return dict(id=self.id, object=kind, created=self.created, model=self.model, choices=choices, **more)


def usage(answer: Answer) -> dict:
    """How many tokens an answer took."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }


def _token(token: Token) -> dict:
    likeliest = [_chance(text, logprob) for _, text, logprob in token.top]
    return {**_chance(token.text, token.logprob), "top_logprobs": likeliest}


def _chance(text: str, logprob: float) -> dict:
    # A token that is a part of a character has no text of its own.
    whole = UNFINISHED not in text
    return {"token": text, "logprob": max(logprob, LEAST), "bytes": list(text.encode()) if whole else None}
