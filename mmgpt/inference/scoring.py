"""Log-probabilities of candidate answers; the prompt and the images that they share are computed once."""

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from mmgpt.models.gated_lm import GatedCausalLM
from mmgpt.models.loss import IGNORE_INDEX
from mmgpt.models.media import Media

MAX_TOKENS = 32768  # of prompts in one forward pass, in which each candidate has a copy of its prompt's keys and values


class Candidate(NamedTuple):
    """Candidate answer: ids (S,), labels (S,) with -100 for tokens that do not count, and the weight of its score."""

    ids: Tensor
    labels: Tensor
    weight: float = 1.0


class Prompts(NamedTuple):
    """Left-padded prompts: ids and mask (B, L), latents (B, T, N, D) of the images or None, image counts (B,)."""

    ids: Tensor
    mask: Tensor
    features: Tensor | None
    counts: Tensor

    def extended(self, rows: Tensor, ids: Tensor, mask: Tensor) -> "Prompts":
        """The prompts of the given rows, each followed by further ids."""
        features = None if self.features is None else self.features[rows]
        ids, mask = torch.cat((self.ids[rows], ids), 1), torch.cat((self.mask[rows], mask), 1)
        return Prompts(ids, mask, features, self.counts[rows])


class AnswerLogprobs(NamedTuple):
    """The K tokens of an answer that count, each (K,) on the CPU, and the answer's log-likelihood, their sum.

    Attributes:
        tokens: their ids.
        logprobs: their log-probabilities.
        greedy: the most likely token at the same position.
        total: the log-likelihood.
    """

    tokens: Tensor
    logprobs: Tensor
    greedy: Tensor
    total: float


@torch.no_grad()
def answer_logprobs(
    model: GatedCausalLM, prompts: Prompts, candidates: Sequence[Sequence[Candidate]]
) -> list[list[AnswerLogprobs]]:
    """The log-probabilities of each candidate's tokens that count.

    Args:
        model: in evaluation mode.
        prompts: B of them.
        candidates: those of each prompt.
    """
    # 1. The prompts, without the last token: it goes before each candidate, whose first token is predicted there.
    starts = Prompts(prompts.ids[:, :-1], prompts.mask[:, :-1], prompts.features, prompts.counts)
    cache, media = DynamicCache(config=model.config), _media(model, starts, 0)
    no_tokens = torch.empty(0, dtype=torch.long, device=prompts.ids.device)
    model(**_inputs(starts, 0), cache=cache, media=media, use_cache=True, logits_to_keep=no_tokens)
    # 2. The candidates, as many at once as fit beside the copies of their prompts.
    flat = [(row, candidate) for row, choices in enumerate(candidates) for candidate in choices]
    size = max(1, MAX_TOKENS // prompts.ids.shape[1])
    results: list[AnswerLogprobs] = []
    for start in range(0, len(flat), size):
        numbers, chunk = zip(*flat[start : start + size], strict=True)
        rows = torch.tensor(numbers, device=prompts.ids.device)
        ids = _padded([candidate.ids for candidate in chunk], 0, rows.device)
        labels = _padded([candidate.labels for candidate in chunk], IGNORE_INDEX, rows.device)
        mask = _padded([torch.ones_like(candidate.ids) for candidate in chunk], 0, rows.device)
        sequences, length = prompts.extended(rows, ids, mask), 1 + ids.shape[1]
        chunk_cache, chunk_media = deepcopy(cache), _media(model, sequences, -length)
        chunk_cache.batch_select_indices(rows)
        if chunk_media is not None:
            chunk_media = chunk_media._replace(cache={i: (k[rows], v[rows]) for i, (k, v) in media.cache.items()})
        logits = model(**_inputs(sequences, -length), cache=chunk_cache, media=chunk_media, use_cache=True).logits[
            :, :-1
        ]
        counted = labels != IGNORE_INDEX
        logprobs = logits.float().log_softmax(dim=-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        totals = (logprobs * counted).sum(dim=1).tolist()
        answers = zip(*(x.cpu() for x in (labels, logprobs, logits.argmax(dim=-1), counted)), totals, strict=True)
        results += [AnswerLogprobs(*(x[mask] for x in columns), total) for *columns, mask, total in answers]
    # 3. The results, grouped by prompt again.
    remaining = iter(results)
    return [[next(remaining) for _ in choices] for choices in candidates]


def score_candidates(
    model: GatedCausalLM, prompts: Prompts, candidates: Sequence[Sequence[Candidate]]
) -> list[list[float]]:
    """The weighted log-likelihood of each candidate; arguments are those of `answer_logprobs`."""
    answers = answer_logprobs(model, prompts, candidates)
    return [
        [candidate.weight * answer.total for candidate, answer in zip(*pair, strict=True)]
        for pair in zip(candidates, answers, strict=True)
    ]


def _inputs(prompts: Prompts, start: int) -> dict[str, Tensor]:
    """Arguments of the language model for the columns from `start` on; the mask is that of the whole sequence."""
    positions = (prompts.mask.cumsum(dim=1) - 1).clamp(min=0)[:, start:]
    return {"input_ids": prompts.ids[:, start:], "attention_mask": prompts.mask, "position_ids": positions}


def _media(model: GatedCausalLM, prompts: Prompts, start: int) -> Media | None:
    """The `Media` of the columns from `start` on, with an empty cache of the images' keys and values."""
    media = model.media(prompts.ids, prompts.features, prompts.counts)
    return media and media._replace(mask=media.mask[:, start:], cache={})


def _padded(rows: Sequence[Tensor], value: int, device: torch.device) -> Tensor:
    return pad_sequence(list(rows), batch_first=True, padding_value=value).to(device)
