"""Answers by transformers' generate: beam search, and models whose sequences cannot share a decoding batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from mmgpt.models.transformers_names import CACHE

from .decoding_batch import DecodingBatch
from .prefill import Prefiller
from .request import GenerationRequest
from .sampling import SampledToken


def same_settings(request: GenerationRequest, other: GenerationRequest) -> bool:
    """Whether one call of generate can answer both requests: equal arguments, no sampling, and neither is `alone`."""
    if request.alone or other.alone:
        return False
    try:
        return request.arguments == other.arguments and not request.arguments.get("do_sample")
    except (RuntimeError, ValueError):  # the comparison of tensors or arrays has no single truth value
        return False


def beam_search(prefiller: Prefiller, requests: Sequence[GenerationRequest]) -> list[str]:
    """Answers requests of the `same_settings` together, or a single request; returns their finish reasons."""
    beams, seed = requests[0].beams, requests[0].seed
    ids = pad_sequence([request.ids[0] for request in requests], True, 0, "left")
    mask = pad_sequence([torch.ones_like(request.ids[0]) for request in requests], True, 0, "left")
    inputs = {"input_ids": ids, "attention_mask": mask}
    # 1. Images, and prefill of all but the last token, which generate computes itself.
    if prefiller.attention_only and all(request.ids.shape[1] > 1 for request in requests):
        prefills = prefiller(requests, held_back=1)
        images = [prefill.images for prefill in prefills]
        batch = DecodingBatch(prefiller.language)
        batch.add([prefill.prefix for prefill in prefills], images)
        batch.cache.batch_repeat_interleave(beams)
        inputs[CACHE] = batch.cache
    else:
        images = prefiller.encode_images(requests)
        for request in requests:
            prefiller.count(request, 0)
    if any(images):
        latents = next(image.latents for row in images for image in row)
        rows = [torch.cat([image.latents for image in row]) if row else latents[:0] for row in images]
        inputs["media_features"] = pad_sequence(rows, True)
        inputs["image_counts"] = ids.new_tensor([len(row) for row in images])
    # 2. The search. The only row of a single answer without beams can be streamed.
    writers = [TokenWriter(request, prefiller.flamingo.tokenizer) for request in requests]
    streams = beams == len(requests) == 1
    with torch.random.fork_rng():
        torch.manual_seed(torch.seed() if seed is None else seed)
        out = prefiller.language.generate(
            **inputs,
            stopping_criteria=StoppingCriteriaList([AllFinished(writers)]),
            streamer=writers[0] if streams else None,
            **requests[0].arguments,
        )
    # 3. The tokens of each answer.
    if not streams:
        for writer, row in zip(writers, out[:, ids.shape[1] :], strict=True):
            writer.prompt_skipped = True
            writer.put(row)
    return ["cancelled" if writer.request.answer.cancelled else writer.reason or "stop" for writer in writers]


class TokenWriter(BaseStreamer):
    """Streamer that appends generated tokens to a request; `reason` is the finish reason, None before the end."""

    def __init__(self, request: GenerationRequest, tokenizer: PreTrainedTokenizerBase):
        self.request, self.tokenizer = request, tokenizer
        self.prompt_skipped, self.reason = False, None

    def put(self, value: Tensor) -> None:
        """Takes tokens; those of the first call are the prompt, and left out."""
        tokens = value.flatten().tolist() if self.prompt_skipped else ()
        self.prompt_skipped = True
        for token in tokens:
            self.reason = self.reason or self.request.add(SampledToken(token), self.tokenizer)

    def end(self) -> None:
        """Do nothing: the scheduler ends the request."""


class AllFinished(StoppingCriteria):
    """Criterion that ends generation once each request has a finish reason, or is cancelled."""

    def __init__(self, writers: Sequence[TokenWriter]):
        self.writers = writers

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        """Whether each row is finished: (B,). ``**kwargs`` is what transformers passes to every criterion."""
        finished = all(writer.request.answer.cancelled or writer.reason for writer in self.writers)
        return torch.full((input_ids.shape[0],), finished, dtype=torch.bool, device=input_ids.device)
