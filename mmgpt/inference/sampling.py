"""Sampling of the next token of one sequence, by transformers' own rules."""

from collections.abc import Mapping
from copy import copy
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin

from mmgpt.models.generation import BEAM_SCORES, DEFAULT_LENGTH, generation_config
from mmgpt.models.generation_files import as_ids

# A lower temperature would make scores infinite; at this one, sampling is greedy decoding already.
MIN_TEMPERATURE = 0.01
# Lowest and highest value of arguments that transformers does not check, or that mean something else out of range.
RANGES = {
    "max_new_tokens": (1, inf),
    "num_beams": (1, inf),
    "length_penalty": (-inf, inf),
    "top_p": (0, 1),
    "top_k": (0, inf),
    "temperature": (MIN_TEMPERATURE, inf),
}
WHOLE = ("max_new_tokens", "num_beams", "top_k")
# Arguments of transformers' generate that the scheduler does not support.
REFUSED = ("max_length", "max_time", "stop_strings", "num_return_sequences")
# Ways of decoding, by transformers' names. Arguments that ask for others (groups of beams) would have no effect.
DECODING = ("greedy_search", "sample", "beam_search", "beam_sample")


class SampledToken(NamedTuple):
    """A token's id, its log-probability, and the most likely tokens at its position with theirs, best first.

    Log-probabilities are the model's own, before temperature and all other processing.
    """

    id: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Sampler of the tokens of one sequence.

    Attributes:
        settings: all settings, as transformers' generation config from `sampling_config`.
        ends: ids of tokens that end the sequence.
        max_new_tokens: limit of its length.

    Args:
        model: the language model, with transformers' generate.
        arguments: from `generation_arguments` (do_sample, temperature, top_p, repetition_penalty, ...), or a
            GenerationConfig from `sampling_config`, which takes a millisecond to make and serves several sequences.
        prompt: (1, L).
        seed: of the random numbers; None: a different one each time.
        top_logprobs: number of most likely tokens that are reported beside the sampled one; None: no log-probabilities.

    Raises:
        ValueError: an argument that generate does not know, or a value it refuses.
    """

    def __init__(
        self,
        model: GenerationMixin,
        arguments: Mapping | GenerationConfig,
        prompt: Tensor,
        seed: int | None = None,
        top_logprobs: int | None = None,
    ):
        config = arguments if isinstance(arguments, GenerationConfig) else sampling_config(model, arguments)
        config = copy(config)
        self.max_new_tokens = config.max_new_tokens or DEFAULT_LENGTH
        # generate makes its processors by these two private methods of transformers, which have no public counterpart.
        config.max_length = prompt.shape[1] + self.max_new_tokens
        model._prepare_special_tokens(config, device=prompt.device)
        self.processors = model._get_logits_processor(config, prompt.shape[1], device=prompt.device)
        self.settings, self.top_logprobs = config, top_logprobs
        self.ends = set(as_ids(config.eos_token_id))
        self.generator = torch.Generator(prompt.device)
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)

    def __call__(self, ids: Tensor, logits: Tensor) -> SampledToken:
        """The token that follows `ids` (1, L), from the model's logits (1, vocabulary)."""
        logits = logits.float()
        scores = self.process(ids, logits.clone())
        if self.settings.do_sample:
            token = torch.multinomial(scores.softmax(dim=-1), 1, generator=self.generator).item()
        else:
            token = scores.argmax(dim=-1).item()
        if self.top_logprobs is None:
            return SampledToken(token)
        logprobs = logits[0].log_softmax(dim=-1)
        values, ids_of_top = logprobs.topk(self.top_logprobs)
        return SampledToken(
            token, logprobs[token].item(), tuple(zip(ids_of_top.tolist(), values.tolist(), strict=True))
        )

    def process(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, vocabulary) of the tokens that follow `ids` (B, L), after transformers' logits processors."""
        # A call of the list would inspect the signature of each processor, at each token.
        for processor in self.processors:
            scores = processor(ids, scores)
        return scores


def sampling_config(model: GenerationMixin, arguments: Mapping) -> GenerationConfig:
    """transformers' generation config of the arguments of a Sampler, and `beam_scores`. Errors are those of Sampler."""
    for name in REFUSED:
        if arguments.get(name) is not None:
            raise ValueError(f"{name}={arguments[name]!r} is not supported; limit answers by max_new_tokens")
    for name, (lowest, highest) in RANGES.items():
        value, kinds = arguments.get(name), (int,) if name in WHOLE else (int, float)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kinds) or not lowest <= value <= highest:
            kind = "a whole number" if name in WHOLE else "a number"
            raise ValueError(f"{name}={value!r}: give {kind} between {lowest} and {highest}")
    config = generation_config(model, arguments)
    mode = config.get_generation_mode().value
    if mode not in DECODING:
        raise ValueError(f"the generation arguments ask for {mode}, which is not supported: {', '.join(DECODING)} are")
    config.num_beams, config.beam_scores = config.num_beams or 1, arguments.get("beam_scores", BEAM_SCORES[0])
    return config
