"""How the next token of one text is chosen, by transformers' own rules."""

from collections.abc import Mapping
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import GenerationMixin

DEFAULT_LENGTH = 20  # tokens, transformers' own
# Of what transformers lets pass, or gives another meaning, outside of it: lowest and highest value.
RANGES = {
    "max_new_tokens": (1, inf),
    "num_beams": (1, inf),
    "top_p": (0, 1),
    "top_k": (0, inf),
    "temperature": (0, inf),
}


class Chosen(NamedTuple):
    """A token, its log-probability, and the likeliest tokens there with theirs, best first.

    Log-probabilities are the model's own, before temperature and all other processing.
    """

    token: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the tokens of one text.

    Attributes:
        ends: tokens that end the text.
        limit: how many tokens it gets at most.

    Args:
        model: the language model, with transformers' generate.
        arguments: of transformers' generate (do_sample, temperature, top_p, repetition_penalty, ...).
        prompt: (1, L).
        seed: of what is drawn; None: another each time.
        top_logprobs: how many of the likeliest tokens are told beside the chosen one; None: no log-probabilities.

    Raises:
        ValueError: an argument that generate does not know, or a value it refuses.
    """

    def __init__(
        self,
        model: GenerationMixin,
        arguments: Mapping,
        prompt: Tensor,
        seed: int | None = None,
        top_logprobs: int | None = None,
    ):
        _check_ranges(arguments)
        own = {name: value for name, value in arguments.items() if name != "custom_generate"}  # a search of its own
        # These three are generate's steps from arguments to processors; transformers has no public name for them.
        config, unknown = model._prepare_generation_config(None, **own)
        if unknown:
            raise ValueError(f"unknown generation arguments: {', '.join(unknown)}")
        model._prepare_special_tokens(config, device=prompt.device)
        self.processors = model._get_logits_processor(config, prompt.shape[1], device=prompt.device)
        self.draws, self.top_logprobs = config.do_sample, top_logprobs
        self.ends = set() if config._eos_token_tensor is None else set(config._eos_token_tensor.tolist())
        self.limit = config.max_new_tokens or DEFAULT_LENGTH
        self.generator = torch.Generator(prompt.device)
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)

    def __call__(self, ids: Tensor, logits: Tensor) -> Chosen:
        """The token that follows `ids` (1, L), where the model says `logits` (1, vocabulary)."""
        logits = logits.float()
        scores = self.processors(ids, logits.clone())
        if self.draws:
            token = torch.multinomial(scores.softmax(dim=-1), 1, generator=self.generator).item()
        else:
            token = scores.argmax(dim=-1).item()
        if self.top_logprobs is None:
            return Chosen(token)
        logprobs = logits[0].log_softmax(dim=-1)
        values, ids = logprobs.topk(self.top_logprobs)
        return Chosen(token, logprobs[token].item(), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def _check_ranges(arguments: Mapping) -> None:
    for name, (lowest, highest) in RANGES.items():
        value = arguments.get(name)
        if value is not None and not lowest <= value <= highest:
            raise ValueError(f"{name}={value}: it lies between {lowest} and {highest}")
