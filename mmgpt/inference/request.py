"""A request to generate an answer, on its way through the scheduler."""

from dataclasses import dataclass, field
from itertools import takewhile

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .answer import Answer, Piece, Token
from .beam_search import BeamSearch
from .detokenizer import AnswerDetokenizer
from .sampling import SampledToken, Sampler


@dataclass(eq=False)
class GenerationRequest:
    """A prompt, the settings of its answer, and the tokens generated so far.

    Attributes:
        ids: (1, L), the prompt.
        pixels: (T, 3, H, W) or cached features (T, P, D), on any device; None without images.
        tile_ids: (T, F) of tiled images, whose pixels are frames (T, F, 3, H, W) or (T, F, P, D); None: not tiled.
        sampler: chooses the tokens.
        answer: the streaming answer that the caller reads.
        detokenizer: makes the text of the answer's pieces; None: the caller decodes `tokens` at the end.
        scope: cached prefixes are shared among requests of one scope only.
        adapter: name of the LoRA adapter that answers; None: the model without one.
        padding: number of padding tokens before the prompt in an evaluation batch (see `BeamSearch`).
        alone: whether the request shares no prefill with others, after an error in one that it shared.
        tokens: of the answer so far.
        search: the beam search, None without beams.
        digests: of the images (see `prefix_cache.image_digest`).
    """

    ids: Tensor
    pixels: Tensor | None
    sampler: Sampler
    answer: Answer
    detokenizer: AnswerDetokenizer | None = None
    scope: str = ""
    adapter: str | None = None
    padding: int = 0
    alone: bool = False
    tokens: list[int] = field(default_factory=list)
    digests: tuple[bytes, ...] = ()
    tile_ids: Tensor | None = None

    def __post_init__(self):
        beams = self.sampler.settings.num_beams
        self.search = BeamSearch(self.sampler, self.ids, self.padding) if beams > 1 else None

    @property
    def last_tokens(self) -> list[int]:
        """The last token of each of its sequences: of the only one, or of all beams."""
        return self.search.tokens if self.search else self.tokens[-1:]

    @property
    def parents(self) -> list[int]:
        """For each of its sequences, the one of the step before that it continues."""
        return self.search.parents if self.search else [0]

    @property
    def answers(self) -> list[list[int]]:
        """Tokens of the finished answers of all beams, the best first; of the only one without beam search."""
        return [answer for _, answer in self.search.finished] if self.search else [self.tokens]

    @property
    def sequence(self) -> Tensor:
        """Prompt and answer so far: (1, L)."""
        return torch.cat((self.ids, self.ids.new_tensor([self.tokens])), dim=1)

    def goes_with(self, other: "GenerationRequest") -> bool:
        """Whether the two may share the forward passes of prefill."""
        return self.adapter == other.adapter and not (self.alone or other.alone)

    def step(self, logits: Tensor, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """The finish reason after choosing the next token of each sequence from logits (its sequences, vocabulary)."""
        if self.search is None:
            return self.add(self.sampler(self.sequence, logits), tokenizer)
        answer = self.search.step(logits)
        if answer is None:
            return None
        reasons = (self.add(SampledToken(token), tokenizer) for token in answer)
        return next(filter(None, reasons), "stop")

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
