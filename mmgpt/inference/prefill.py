"""Prompts read from where they are not known any more."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmgpt.inference.decoding_batch import Known, SeenImage, can_be_known, read, see
from mmgpt.models import Flamingo

from .prefix_cache import Kept, name_of, names_of
from .request import Request


class Read(NamedTuple):
    """A prompt that was read: its images, logits of the token that follows (1, vocabulary), and what is known of it."""

    images: list[SeenImage]
    logits: Tensor
    known: Known


class Reader:
    """Reads prompts with a model, and keeps what it computes of them for the next.

    Attributes:
        keeps: whether it can: keys and values are all that the model keeps of a text.
        prompt_tokens, cached_tokens: numbers of tokens of all prompts, and of those among them that were known.

    Args:
        flamingo: in evaluation mode; its weights do not change any more.
        cache_bytes: for what is kept.
    """

    def __init__(self, flamingo: Flamingo, cache_bytes: int):
        self.flamingo, self.language = flamingo, flamingo.language
        self.kept, self.keeps = Kept(cache_bytes), can_be_known(flamingo.language)
        self.prompt_tokens = self.cached_tokens = 0

    def read(self, request: Request, ids: Tensor) -> Read:
        """Reads the beginning `ids` (1, L) of a request's prompt."""
        images = self.look(request)
        names = self.names(request, ids)
        known = self.kept.beginning(names[:-1])
        self.count(request, len(known))
        logits, known = read(self.language, ids, images, known)
        self.kept.keep_text(names, known)
        return Read(images, logits, known)

    def look(self, request: Request) -> list[SeenImage]:
        """The images of a request; those that are not kept go through tower and resampler."""
        if request.pixels is None:
            return []
        placed = getattr(self.flamingo.perceiver, "takes_positions", True)
        request.names = tuple(name_of(image, place * placed) for place, image in enumerate(request.pixels))
        images = {name: self.kept.image(name) for name in request.names}
        new = [request.names.index(name) for name, image in images.items() if image is None]
        if new:
            pixels, places = request.pixels[None, new], torch.tensor([new])
            latents = self.flamingo.encode_images(
                pixels.to(request.ids.device), positions=places.to(request.ids.device)
            )[0]
            for place, image in zip(new, see(self.language, latents), strict=True):
                images[request.names[place]] = image
                self.kept.keep_image(request.names[place], image)
        return [images[name] for name in request.names]

    def count(self, request: Request, cached: int) -> None:
        """Counts the tokens of a request's prompt, of which `cached` are known."""
        request.answer.prompt_tokens, request.answer.cached_tokens = request.ids.shape[1], cached
        self.prompt_tokens += request.ids.shape[1]
        self.cached_tokens += cached

    def keep(self, request: Request, ids: Tensor, known: Known) -> None:
        """Keeps what is known of the beginning of a request's text `ids` (1, L), L at least as long."""
        self.kept.keep_text(self.names(request, ids[:, : len(known)]), known)

    def names(self, request: Request, ids: Tensor) -> np.ndarray:
        """As `names_of`, of the beginning of a request's text, with its scope."""
        return names_of(self.language, ids, request.names, request.scope)
