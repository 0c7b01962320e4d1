"""Answers of a model to a padded batch of prompts."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmgpt.models import Flamingo
from mmgpt.models.generation import generation_arguments
from mmgpt.models.media import count_images
from mmgpt.registry import FUNCTIONS

from .answer import Answer
from .request import GenerationRequest
from .sampling import Sampler, sampling_config
from .scheduler import Scheduler
from .scoring import Candidate, Prompts, score_candidates


@FUNCTIONS.register_module()
@torch.no_grad()
def predict(
    flamingo: Flamingo,
    prompts: tuple[Tensor, *tuple[Tensor | None, ...]],
    candidates: Sequence[Sequence[dict]] | None,
    metas: Sequence[dict],
) -> list[dict]:
    """Rows of an evaluation: each meta with its 'prediction', and the 'scores' of its choices where it has candidates.

    Args:
        flamingo: in evaluation mode.
        prompts: left-padded input_ids, attention_mask, pixels, image_counts and tile_ids as for Flamingo's forward.
        candidates: for each prompt the answers to choose among by their log-likelihoods (fields of
            `scoring.Candidate`); None: answers are generated with the model's own generation arguments.
        metas: one of each prompt.

    Raises:
        ValueError: a row has another number of images than of `<image>` tokens.
    """
    if candidates is not None:
        ids, mask, pixels, counts, tile_ids = _complete(flamingo, prompts)
        features = None if pixels is None else flamingo.encode_images(pixels, counts, tile_ids=tile_ids)
        answers = [[Candidate(**candidate) for candidate in row] for row in candidates]
        scores = score_candidates(flamingo.language, Prompts(ids, mask, features, counts), answers)
        best = [max(range(len(row)), key=row.__getitem__) for row in scores]
        columns = zip(metas, best, scores, strict=True)
        return [{**meta, "prediction": meta["choices"][i], "scores": row} for meta, i, row in columns]
    requests = answer_prompts(flamingo, prompts, flamingo.generation)
    texts = [request.text(flamingo.tokenizer) for request in requests]
    return [{**meta, "prediction": text} for meta, text in zip(metas, texts, strict=True)]


@FUNCTIONS.register_module()
@torch.no_grad()
def answer_prompts(
    flamingo: Flamingo, prompts: tuple[Tensor, *tuple[Tensor | None, ...]], generation: Mapping
) -> list[GenerationRequest]:
    """The answered requests of a batch of prompts, which are those of `predict`, with these generation arguments."""
    ids, mask, pixels, counts, tile_ids = _complete(flamingo, prompts)
    arguments = generation_arguments(flamingo.tokenizer, generation, flamingo.language.ends)
    config, requests = sampling_config(flamingo.language, arguments), []
    for row, count in enumerate(counts.tolist()):
        prompt = ids[row][mask[row].bool()][None]
        sampler = Sampler(flamingo.language, config, prompt, draw_seed(arguments))
        images, padding = pixels[row, :count] if count else None, ids.shape[1] - prompt.shape[1]
        tiles = tile_ids[row, :count] if count and tile_ids is not None else None
        requests.append(GenerationRequest(prompt, images, sampler, Answer(), padding=padding, tile_ids=tiles))
    # The prefixes of such a batch are not needed again, so that no cache has to hold them.
    Scheduler(flamingo, len(requests) * config.num_beams, cache_bytes=0).run(requests)
    for request in requests:
        list(request.answer)  # raises the error that ended the answer
    return requests


def _complete(flamingo: Flamingo, prompts: tuple) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None]:
    """The prompts with their mask and their numbers of images."""
    ids, mask, pixels, counts, tile_ids = prompts
    max_images = 0 if pixels is None else pixels.shape[1]
    counts = count_images(ids == flamingo.language.image_token_id, max_images, counts)
    return ids, torch.ones_like(ids) if mask is None else mask, pixels, counts, tile_ids


def draw_seed(arguments: Mapping) -> int | None:
    """A seed from torch's global generator, which a reproducible run has seeded; None for answers without sampling."""
    return int(torch.randint(2**63 - 1, ())) if arguments.get("do_sample") else None
