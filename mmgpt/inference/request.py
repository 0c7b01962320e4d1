"""A request to generate an answer, on its way through the scheduler."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .answer import Answer, Piece, Token
from .detokenizer import AnswerDetokenizer
from .sampling import SampledToken, Sampler


@dataclass(eq=False)
class GenerationRequest:
    """A prompt, the settings of its answer, and the tokens generated so far.

    Attributes:
        ids: (1, L), the prompt.
        pixels: (T, 3, H, W) or cached features (T, P, D), on any device; None without images.
        sampler: chooses the tokens.
        answer: the streaming answer that the caller reads.
        arguments: of transformers' generate, which runs beam search. Their `max_new_tokens` is the sampler's.
        detokenizer: makes the text of the answer's pieces; None: the caller decodes `tokens` at the end.
        seed: the sampler's.
        scope: cached prefixes are shared among requests of one scope only.
        alone: whether the request shares no prefill or beam search with others, after an error in one that it shared.
        tokens: generated so far.
        digests: of the images (see `prefix_cache.image_digest`).
    """

    ids: Tensor
    pixels: Tensor | None
    sampler: Sampler
    answer: Answer
    arguments: Mapping
    detokenizer: AnswerDetokenizer | None = None
    seed: int | None = None
    scope: str = ""
    alone: bool = False
    tokens: list[int] = field(default_factory=list)
    digests: tuple[bytes, ...] = ()

    def __post_init__(self):
        self.arguments = {**self.arguments, "max_new_tokens": self.sampler.max_new_tokens}

    @property
    def beams(self) -> int:
        """Number of beams; 1 without beam search."""
        return self.arguments.get("num_beams") or 1

    @property
    def sequence(self) -> Tensor:
        """Prompt and answer so far: (1, L)."""
        return torch.cat((self.ids, self.ids.new_tensor([self.tokens])), dim=1)

    def add(self, sampled: SampledToken, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """The finish reason after appending a token to the answer, None while the answer goes on."""
        self.tokens.append(sampled.id)
        self.answer.count()
        ended, stopped = sampled.id in self.sampler.ends, False
        if self.detokenizer is not None:
            # An end can be an ordinary token, which the detokenizer would not leave out.
            text = "" if ended else self.detokenizer.add(sampled.id)
            tokens = () if self.sampler.top_logprobs is None else (_with_text(sampled, tokenizer),)
            if text or tokens:
                self.answer.put(Piece(text, tokens))
            stopped = self.detokenizer.stopped
        if ended or stopped:
            return "stop"
        return "length" if len(self.tokens) >= self.sampler.max_new_tokens else None

    def end(self, reason: str) -> None:
        """Ends the answer with a finish reason, after the text that was held back."""
        text = self.detokenizer.flush() if self.detokenizer else ""
        if text:
            self.answer.put(Piece(text))
        self.answer.end(reason)

    def text(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The whole answer without special tokens and surrounding white space; waits for its end.

        Raises the error that ended the request.
        """
        for _ in self.answer:  # without a detokenizer there are no pieces, but an error is raised
            pass
        ids = list(takewhile(lambda token: token not in self.sampler.ends, self.tokens))
        return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()


def _with_text(sampled: SampledToken, tokenizer: PreTrainedTokenizerBase) -> Token:
    """A sampled token with the texts of the tokens that it names."""

    def text(token: int) -> str:
        return tokenizer.decode([token], clean_up_tokenization_spaces=False)

    top = tuple((token, text(token), logprob) for token, logprob in sampled.top)
    return Token(sampled.id, text(sampled.id), sampled.logprob, top)
