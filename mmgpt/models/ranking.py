"""The likelihoods of candidate answers; the images and the prompt that they share are computed once."""

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from .gated_lm import GatedCausalLM
from .media import Media

TOKENS = 32768  # of prompts, computed at once: each candidate takes its prompt's keys and values with it
IGNORE_INDEX = -100  # the label of a token that does not count: that of torch's cross_entropy


class Candidate(NamedTuple):
    """What follows a prompt: ids (S,), labels (S,) with -100 for what does not count, and the weight of its score."""

    ids: Tensor
    labels: Tensor
    weight: float = 1.0


class Prompts(NamedTuple):
    """Left-padded prompts: ids and mask (B, L), latents of their images (B, T, N, D) or None, numbers of these (B,)."""

    ids: Tensor
    mask: Tensor
    features: Tensor | None
    counts: Tensor

    def of(self, rows: Tensor, more: Tensor, more_mask: Tensor) -> "Prompts":
        """Some rows, each with more tokens behind it."""
        features = None if self.features is None else self.features[rows]
        ids, mask = torch.cat((self.ids[rows], more), 1), torch.cat((self.mask[rows], more_mask), 1)
        return Prompts(ids, mask, features, self.counts[rows])


@torch.no_grad()
def rank(model: GatedCausalLM, prompts: Prompts, candidates: Sequence[Sequence[Candidate]]) -> list[list[float]]:
    """The weighted sum of the log-likelihoods of each candidate's labelled tokens.

    Args:
        model: in evaluation mode.
        prompts: B of them.
        candidates: for each prompt.
    """
    # The last token of a prompt goes before each of its candidates: their first token is predicted there.
    shared = Prompts(prompts.ids[:, :-1], prompts.mask[:, :-1], prompts.features, prompts.counts)
    cache, media = DynamicCache(config=model.config), _media(model, shared, 0)
    model(**_inputs(shared, 0), cache=cache, media=media, use_cache=True, logits_to_keep=1)
    flat = [(row, candidate) for row, some in enumerate(candidates) for candidate in some]
    scores, most = [], max(1, TOKENS // prompts.ids.shape[1])
    for start in range(0, len(flat), most):
        rows, chunk = zip(*flat[start : start + most], strict=True)
        scores += _score(model, prompts, (cache, media), torch.tensor(rows, device=prompts.ids.device), chunk)
    left = iter(scores)
    return [[next(left) for _ in some] for some in candidates]


def _score(
    model: GatedCausalLM,
    prompts: Prompts,
    known: tuple[DynamicCache, Media | None],
    rows: Tensor,
    chunk: Sequence[Candidate],
) -> list[float]:
    ids = _pad([candidate.ids for candidate in chunk], 0, rows.device)
    labels = _pad([candidate.labels for candidate in chunk], IGNORE_INDEX, rows.device)
    mask = _pad([torch.ones_like(candidate.ids) for candidate in chunk], 0, rows.device)
    whole, new = prompts.of(rows, ids, mask), 1 + ids.shape[1]
    cache = deepcopy(known[0])
    cache.batch_select_indices(rows)
    media = _media(model, whole, -new)
    if media is not None:
        media = media._replace(cache={i: (k[rows], v[rows]) for i, (k, v) in known[1].cache.items()})
    out = model(**_inputs(whole, -new), cache=cache, media=media, use_cache=True)
    likelihoods = out.logits[:, :-1].float().log_softmax(dim=-1)
    counted = labels != IGNORE_INDEX
    sums = (likelihoods.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * counted).sum(dim=1)
    return [weight * value for value, (_, _, weight) in zip(sums.tolist(), chunk, strict=True)]


def _inputs(prompts: Prompts, start: int) -> dict[str, Tensor]:
    """Arguments of the language model for the columns from `start` on, the mask being that of the whole text."""
    positions = (prompts.mask.cumsum(dim=1) - 1).clamp(min=0)[:, start:]
    return {"input_ids": prompts.ids[:, start:], "attention_mask": prompts.mask, "position_ids": positions}


def _media(model: GatedCausalLM, prompts: Prompts, start: int) -> Media | None:
    """What the columns from `start` on read of the images, with room for their keys and values."""
    media = model.media(prompts.ids, prompts.features, prompts.counts)
    return media and media._replace(mask=media.mask[:, start:], cache={})


def _pad(rows: Sequence[Tensor], value: int, device: torch.device) -> Tensor:
    return pad_sequence(list(rows), batch_first=True, padding_value=value).to(device)
