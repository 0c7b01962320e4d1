"""Answers by transformers' generate: with beams, and of models whose texts cannot grow in one batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from mmgpt.inference.decoding_batch import Growing, SeenImage
from mmgpt.models.sampling import Chosen
from mmgpt.models.transformers_names import CACHE

from .prefill import Reader
from .request import Request


def go_together(one: Request, other: Request) -> bool:
    """Whether two requests can be answered in one call: with the same arguments, and with nothing drawn."""
    try:
        return one.arguments == other.arguments and not one.arguments.get("do_sample")
    except (RuntimeError, ValueError):  # tensors and arrays have no single answer to that
        return False


def search(reader: Reader, requests: Sequence[Request]) -> list[str]:
    """Answers requests that `go_together`, or a single one.

    Returns: the reason of each one's end.
    """
    inputs = _beginnings(reader, requests)
    tokenizer, beams = reader.flamingo.tokenizer, requests[0].beams
    takings = [Taking(request, tokenizer) for request in requests]
    inputs["stopping_criteria"] = StoppingCriteriaList([StopWhenOver(takings)])
    streams = beams == len(requests) == 1
    seed = requests[0].seed
    with torch.random.fork_rng():
        torch.manual_seed(torch.seed() if seed is None else seed)
        streamer = takings[0] if streams else None
        out = reader.language.generate(**inputs, streamer=streamer, **requests[0].arguments)
    if not streams:
        for taking, row in zip(takings, out[:, inputs["input_ids"].shape[1] :], strict=True):
            taking.prompt_seen = True
            taking.put(row)
    return ["cancelled" if t.request.answer.cancelled else t.reason or "stop" for t in takings]


class Taking(BaseStreamer):
    """Hands a request the tokens that generate makes for it; `reason` is why it ends, None before."""

    def __init__(self, request: Request, tokenizer: PreTrainedTokenizerBase):
        self.request, self.tokenizer = request, tokenizer
        self.prompt_seen, self.reason = False, None

    def put(self, value: Tensor) -> None:
        """Take the prompt (first call, left out) or tokens."""
        tokens = value.flatten().tolist() if self.prompt_seen else ()
        self.prompt_seen = True
        for token in tokens:
            self.reason = self.reason or self.request.take(Chosen(token), self.tokenizer)

    def end(self) -> None:
        """Nothing: the request is ended by the engine."""


class StopWhenOver(StoppingCriteria):
    """Ends a generation at its next token once each of its requests has a reason to end, or is cancelled."""

    def __init__(self, takings: Sequence[Taking]):
        self.takings = takings

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        """Say for each row (B,) whether it is over. ``**kwargs`` is what transformers passes to every criterion."""
        over = all(taking.request.answer.cancelled or taking.reason for taking in self.takings)
        return torch.full((input_ids.shape[0],), over, dtype=torch.bool, device=input_ids.device)


def _beginnings(reader: Reader, requests: Sequence[Request]) -> dict:
    """Left-padded prompts and their images as generate takes them, with what is known of them, for each beam."""
    ids = pad_sequence([request.ids[0] for request in requests], True, 0, "left")
    mask = pad_sequence([torch.ones_like(request.ids[0]) for request in requests], True, 0, "left")
    inputs = {"input_ids": ids, "attention_mask": mask}
    if reader.keeps and all(request.ids.shape[1] > 1 for request in requests):
        # All but the last token, which generate wants to read itself.
        read = [reader.read(request, request.ids[:, :-1]) for request in requests]
        texts, images = Growing(reader.language), [each.images for each in read]
        for each in read:
            texts.add(each.known, each.images)
        texts.cache.batch_repeat_interleave(requests[0].beams)
        inputs[CACHE] = texts.cache
    else:
        images = [reader.look(request) for request in requests]
        for request in requests:
            reader.count(request, 0)
    counts = [len(some) for some in images]
    if any(counts):
        inputs["media_features"] = pad_sequence([_latents(some, images) for some in images], True)
        inputs["image_counts"] = ids.new_tensor(counts)
    return inputs


def _latents(some: Sequence[SeenImage], images: Sequence[Sequence[SeenImage]]) -> Tensor:
    """Latents of a row's images (T, N, D)."""
    if some:
        return torch.cat([image.latents for image in some])
    return next(each for row in images for each in row).latents[:0]
