"""A question on its way to the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mmgpt.models.sampling import Chosen, Sampler

from .answer import Answer, Piece, Token
from .detokenizer import AnswerText


@dataclass(eq=False)
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
        scope: of the texts that are kept.
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
    scope: str = ""
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
        ended = chosen.token in self.sampler.ends
        text = "" if ended else self.text.add(chosen.token)  # some ends are no special tokens, which are left out
        if text or tokens:
            self.answer.put(Piece(text, tokens))
        if ended or self.text.stopped:
            return "stop"
        return "length" if len(self.tokens) >= self.sampler.limit else None

    def end(self, reason: str) -> None:
        """Gives the asker what was held back, and the reason of the end."""
        rest = self.text.rest()
        if rest:
            self.answer.put(Piece(rest))
        self.answer.end(reason)


def _named(chosen: Chosen, tokenizer: PreTrainedTokenizerBase) -> Token:
    """A choice with the texts of its tokens."""

    def text(token: int) -> str:
        return tokenizer.decode([token], clean_up_tokenization_spaces=False)

    top = tuple((token, text(token), logprob) for token, logprob in chosen.top)
    return Token(chosen.token, text(chosen.token), chosen.logprob, top)
