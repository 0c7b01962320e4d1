"""Response bodies in OpenAI's format: a chat completion, or the chunks of a streamed one."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmgpt.inference.answer import Answer, Piece, Token
from mmgpt.inference.detokenizer import UNFINISHED

MIN_LOGPROB = -9999.0  # stands for minus infinity, which JSON does not have


@dataclass(frozen=True)
class ResponseBuilder:
    """Builder of the JSON objects of one response.

    Attributes:
        model: the name of the model.
        logprobs: whether tokens with their log-probabilities are included.
        with_usage: whether a stream ends with the usage.
    """

    model: str
    logprobs: bool = False
    with_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, pieces: Sequence[Piece], answer: Answer) -> dict:
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
        logprobs = None
        if self.logprobs:
            contents = []
            for token in tokens:
                top = [_token_logprob(text, logprob) for _, text, logprob in token.top]
                contents.append({**_token_logprob(token.text, token.logprob), "top_logprobs": top})
            logprobs = {"content": contents, "refusal": None}
        return {"index": 0, key: content, "logprobs": logprobs, "finish_reason": finish_reason}

    def _object(self, kind: str, choices: list[dict], **more: dict | None) -> dict:
        return dict(id=self.id, object=kind, created=self.created, model=self.model, choices=choices, **more)


def usage(answer: Answer) -> dict:
    """Numbers of tokens of an answer and its prompt."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }


def _token_logprob(text: str, logprob: float) -> dict:
    # A token can hold a few bytes of a character only, whose text has no such bytes.
    is_complete = UNFINISHED not in text
    return {"token": text, "logprob": max(logprob, MIN_LOGPROB), "bytes": list(text.encode()) if is_complete else None}
