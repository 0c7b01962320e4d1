"""Answers by transformers' generate, the reference of the project's own decoding and beam search."""

import torch

from mmgpt.models import flamingo_of
from mmgpt.models.generation import generation_arguments
from mmgpt.models.transformers_names import CACHE
from tests.helpers.published_beams import PublishedBeams


def reference_generate(
    model, input_ids, attention_mask=None, pixels=None, image_counts=None, tile_ids=None, use_cache=True, **generation
):
    """Same as Flamingo.generate, with transformers' loop; transformers 4.30's where beams are scored by "text"."""
    flamingo = flamingo_of(model)
    language = flamingo.language
    features, counts = flamingo._latents_and_counts(input_ids, pixels, image_counts, tile_ids=tile_ids)
    arguments = generation_arguments(flamingo.tokenizer, generation, language.ends)
    if arguments.pop("beam_scores", "answer") == "text" and (arguments.get("num_beams") or 1) > 1:
        arguments["custom_generate"] = PublishedBeams(tuple(flamingo.ends(generation)), CACHE)
    with torch.no_grad():
        out = language.generate(
            input_ids,
            media_features=features,
            image_counts=counts,
            attention_mask=torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            use_cache=use_cache,
            **arguments,
        )
    return out[:, input_ids.shape[1] :]
