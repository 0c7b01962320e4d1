"""A question on its way to the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from mmgpt.models.sampling import Chosen, Sampler

from .answer import Answer, Piece, Token
from .streaming import AnswerText


@dataclass
class Request:
    """A question on its way.

    Attributes:
        ids: (1, L), the prompt.
        pixels: (T, 3, H, W) on the CPU, or None without images.
        sampler: chooses its tokens.
        text: makes text of its tokens.
        answer: what the asker holds.
        arguments: of generate, which answers where there are beams.
        seed: the sampler's.
        tokens: the answer's so far.
        names: of its images, in the engine's memory.
    """

    ids: Tensor
    pixels: Tensor | None
    sampler: Sampler
    text: AnswerText
    answer: Answer
    arguments: Mapping
    seed: int | None = None
    tokens: list[int] = field(default_factory=list)
    names: tuple[bytes, ...] = ()

    @property
    def beams(self) -> int:
        """How many beams are asked for."""
        return self.arguments.get("num_beams") or 1

    @property
    def whole(self) -> Tensor:
        """Prompt and answer so far: (1, L)."""
        return torch.cat((self.ids, self.ids.new_tensor([self.tokens])), dim=1)

    def take(self, chosen: Chosen, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """Takes the answer's next token; the reason to end when it is the last."""
        self.tokens.append(chosen.token)
        self.answer.count()
        tokens = () if self.sampler.top_logprobs is None else (_named(chosen, tokenizer),)
        text = self.text.add(chosen.token)
        if text or tokens:
            self.answer.put(Piece(text, tokens))
        if chosen.token in self.sampler.ends or self.text.stopped:
            return "stop"
        return "length" if len(self.tokens) >= self.sampler.limit else None

    def end(self, reason: str) -> None:
        """Gives the asker what was held back, and the reason of the end."""
        rest = self.text.rest()
        if rest:
            self.answer.put(Piece(rest))
        self.answer.end(reason)


class Taking(BaseStreamer):
    """Hands a request the tokens that generate makes for it, one by one; `reason` is why it ends, None before."""

    def __init__(self, request: Request, tokenizer: PreTrainedTokenizerBase):
        self.request, self.tokenizer = request, tokenizer
        self.prompt_seen, self.reason = False, None

    def put(self, value: Tensor) -> None:
        """Take the prompt (first call, left out) or tokens."""
        tokens = value.flatten().tolist() if self.prompt_seen else ()
        self.prompt_seen = True
        for token in tokens:
            self.reason = self.reason or self.request.take(Chosen(token), self.tokenizer)

    def end(self) -> None:
        """Nothing: the request is ended by the engine."""


class StopWhenOver(StoppingCriteria):
    """Ends a generation at its next token once its request has a reason to end, or its answer is cancelled."""

    def __init__(self, taking: Taking):
        self.taking = taking

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        """Say for each row (B,) whether it is over. ``**kwargs`` is what transformers passes to every criterion."""
        over = self.taking.request.answer.cancelled or self.taking.reason is not None
        return torch.full((input_ids.shape[0],), over, dtype=torch.bool, device=input_ids.device)


def _named(chosen: Chosen, tokenizer: PreTrainedTokenizerBase) -> Token:
    """A choice with the texts of its tokens."""

    def text(token: int) -> str:
        return tokenizer.decode([token], clean_up_tokenization_spaces=False)

    top = tuple((token, text(token), logprob) for token, logprob in chosen.top)
    return Token(chosen.token, text(chosen.token), chosen.logprob, top)
