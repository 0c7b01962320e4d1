"""Prefill: images and prompts through the model, as far as the prefix cache does not hold them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmgpt.models import Flamingo
from mmgpt.models.gated_lm import GatedCausalLM
from mmgpt.models.media import Media, media_mask
from mmgpt.models.packing import is_attention_only

from .kv_cache import EncodedImage, PrefixKV, RecurrentPrefix, recurrent_cache
from .prefix_cache import PrefixCache, common_length, image_digest, token_keys
from .request import GenerationRequest

MAX_TOKENS = 16384  # of prompts in one forward pass, padding included
SHARED_TOKENS = 256  # fewer tokens that prompts have in common are not worth a forward pass of their own


class Prefill(NamedTuple):
    """A prompt after its forward pass: its images, logits of the next token (1, vocabulary), and its KV."""

    images: list[EncodedImage]
    logits: Tensor
    prefix: PrefixKV | RecurrentPrefix


class Prefiller:
    """Prefill of prompts by a model; prefixes and images in the prefix cache are not computed again.

    Prompts that are computed together have one adapter, which is the active one. Each adapter has keys, values and
    images of its own in the cache.

    Attributes:
        cache: the PrefixCache.
        attention_only: whether keys and values are the model's whole state of a sequence. Models with a recurrent
            state (state space, linear attention) have no prefixes in the cache, and compute each prompt by itself.
        state_in_modules: whether the model keeps its recurrent state in its own modules (RecurrentGemma), where several
            sequences would overwrite each other's: they are then decoded one after the other, and without beams.
        prompt_tokens, cached_tokens: numbers of tokens of all prompts, and of those that came from the cache.

    Args:
        flamingo: in evaluation mode; its weights do not change any more.
        cache_bytes: limit of the prefix cache.
    """

    def __init__(self, flamingo: Flamingo, cache_bytes: int):
        self.flamingo, self.language = flamingo, flamingo.language
        self.cache, self.attention_only = PrefixCache(cache_bytes), is_attention_only(flamingo.language.model)
        self.state_in_modules = "recurrent" in (getattr(self.language.config, "layers_block_type", None) or ())
        self.prompt_tokens = self.cached_tokens = 0

    def __call__(self, requests: Sequence[GenerationRequest]) -> list[Prefill]:
        """The prefill of each request's prompt; ValueError for beams of a model with its state in its modules."""
        if self.state_in_modules and any(request.search for request in requests):
            name = self.language.config.model_type
            raise ValueError(f"{name!r} keeps its state in its modules, so that it has no beams: set num_beams=1")
        images, prompts = self.encode_images(requests), [request.ids for request in requests]
        lengths, caching = [ids.shape[1] for ids in prompts], self.cache.limit and self.attention_only
        prefills: dict[int, Prefill] = {}

        def compute(rows: Sequence[int]) -> None:
            batch = [[column[row] for row in rows] for column in (prompts, images, prefixes)]
            for row, (logits, prefix) in zip(rows, prefill(self.language, *batch), strict=True):
                prefills[row], request = Prefill(images[row], logits, prefix), requests[row]
                cached = len(prefixes[row]) if caching else 0
                request.answer.prompt_tokens, request.answer.cached_tokens = lengths[row], cached
                self.prompt_tokens += lengths[row]
                self.cached_tokens += cached
                if caching:
                    # A copy can be cached without the other rows of the batch.
                    self.cache.add(keys[row], prefix if len(rows) == 1 else prefix.copy())

        if not self.attention_only:  # A recurrent state would contain the padding of a batch.
            prefixes = [RecurrentPrefix(recurrent_cache(self.language.config)) for _ in requests]
            for row in range(len(requests)):
                compute([row])
        else:
            keys = [self._keys(request, request.ids) for request in requests]
            prefixes = [self.cache.longest(row[:-1]) if caching else PrefixKV() for row in keys]
            # What all prompts begin with (a system text, demonstrations without images) is computed once.
            shared, rest = min(common_length(keys[0], row[:-1]) for row in keys), range(len(keys))
            if (shared - max(map(len, prefixes))) * (len(keys) - 1) >= SHARED_TOKENS:
                compute([0])
                rest = rest[1:]
                prefixes = [prefixes[0], *[prefills[0].prefix.cut(shared)] * len(rest)]
            # Rows of one forward pass have equally long prefixes, so that padding stands behind their last token only.
            for rows in _batches(rest, list(map(len, prefixes)), lengths):
                compute(rows)
        return [prefills[row] for row in range(len(requests))]

    def encode_images(self, requests: Sequence[GenerationRequest]) -> list[list[EncodedImage]]:
        """The images of each request; those that are not cached go through image encoder and resampler together."""
        positional = getattr(self.flamingo.perceiver, "takes_positions", True)
        encoded: dict[bytes, EncodedImage | None] = {}
        new: dict[bytes, tuple[Tensor, int, Tensor | None]] = {}
        for number, request in enumerate(requests):
            pixels = () if request.pixels is None else request.pixels
            tiles = [None] * len(pixels)
            if request.tile_ids is not None:  # The padding depends on the other images of the request.
                tiles = [tile_ids[tile_ids >= 0] for tile_ids in request.tile_ids]
                pixels = [image[: len(tile_ids)] for image, tile_ids in zip(pixels, tiles, strict=True)]
            if self.cache.limit:
                images = enumerate(zip(pixels, tiles, strict=True))
                request.digests = tuple(
                    image_digest(image, i * positional, ids, request.adapter) for i, (image, ids) in images
                )
            else:  # Without a cache, digests would find equal images of one batch only, and cost more than they save.
                request.digests = tuple(f"{number}, {i}".encode() for i in range(len(pixels)))
            for i, digest in enumerate(request.digests):
                encoded[digest] = encoded.get(digest) or self.cache.image(digest)
                if encoded[digest] is None:
                    new.setdefault(digest, (pixels[i], i, tiles[i]))
        # Images can have several numbers of tiles, and their cached features several shapes.
        by_shape: dict[torch.Size, list[bytes]] = {}
        for digest, (image, *_) in new.items():
            by_shape.setdefault(image.shape, []).append(digest)
        for digests in by_shape.values():
            pixels, positions, tiles = zip(*(new[digest] for digest in digests), strict=True)
            batch = torch.stack(pixels)[None].to(requests[0].ids.device)
            positions = torch.tensor([positions], device=batch.device)
            tile_ids = None if tiles[0] is None else torch.stack(tiles)[None].to(batch.device)
            latents = self.flamingo.encode_images(batch, positions=positions, tile_ids=tile_ids)[0]
            for digest, image in zip(digests, encode_images(self.language, latents), strict=True):
                encoded[digest] = image
                if self.cache.limit:
                    self.cache.add_image(digest, image)
        return [[encoded[digest] for digest in request.digests] for request in requests]

    def store(self, request: GenerationRequest, prefix: PrefixKV) -> None:
        """Caches the KV of the first tokens of a request's prompt and answer."""
        if self.cache.limit:
            self.cache.add(self._keys(request, request.sequence[:, : len(prefix)]), prefix)

    def _keys(self, request: GenerationRequest, ids: Tensor) -> np.ndarray:
        return token_keys(self.language, ids, request.digests, f"{request.adapter or ''}\n{request.scope}")


@torch.no_grad()
def encode_images(model: GatedCausalLM, latents: Tensor) -> list[EncodedImage]:
    """The encoded images of latents (T, N, D), with their keys and values in each gated block."""
    latents, pairs, images = latents.to(model.dtype), model.image_keys_values(latents), []
    for t in range(len(latents)):
        index = slice(t, t + 1)
        # The tensors are copied, so that an image can be cached without the others of its batch.
        cache = {i: (k[index].clone(), v[index].clone()) for i, (k, v) in pairs.items()}
        images.append(EncodedImage(latents[index].clone(), cache))
    return images


@torch.no_grad()
def prefill(
    model: GatedCausalLM,
    prompts: Sequence[Tensor],
    images: Sequence[Sequence[EncodedImage]],
    prefixes: Sequence[PrefixKV] | Sequence[RecurrentPrefix],
) -> list[tuple[Tensor, PrefixKV | RecurrentPrefix]]:
    """One forward pass over prompts, from the end of their prefixes on: their next logits and KV.

    Args:
        model: in evaluation mode.
        prompts: whole prompts (1, L).
        images: of each prompt, one for each of its `<image>` tokens.
        prefixes: KV of each prompt's first S < L tokens, S being the same for all; or a RecurrentPrefix of no tokens
            for a single prompt.

    Returns: for each prompt the logits of the next token (1, vocabulary), and its KV.
    """
    start, lengths = len(prefixes[0]), [ids.shape[1] for ids in prompts]
    ids = pad_sequence([row[0] for row in prompts], batch_first=True)
    recurrent = isinstance(prefixes[0], RecurrentPrefix)
    if recurrent:
        cache = prefixes[0].state
    else:
        layers = zip(*(prefix.layers for prefix in prefixes), strict=True)
        cache = PrefixKV(tuple(tuple(_cat(kind, 0) for kind in zip(*pairs, strict=True)) for pairs in layers)).cache()
    # No mask hides the padding: it is on the right, where no token of a causal model attends to it.
    positions = torch.arange(start, ids.shape[1], device=ids.device).expand(len(ids), -1)
    # Logits are computed at the columns in which some prompt ends. By number (logits_to_keep=1), the head would get a
    # slice of the states, for which torch copies bfloat16 weights (findings/torch_cpu_linear_of_a_slice.sh).
    columns = sorted({length - start - 1 for length in lengths})
    out = model(
        ids[:, start:],
        torch.ones_like(ids),
        positions,
        cache=cache,
        media=_media(model, ids, images, start),
        use_cache=True,
        logits_to_keep=torch.tensor(columns, device=ids.device),
    )
    prefills = []
    for row, length in enumerate(lengths):
        if recurrent:
            prefix = RecurrentPrefix(cache, length)
        else:
            index = slice(row, row + 1), slice(None), slice(length)
            prefix = PrefixKV(tuple((layer.keys[index], layer.values[index]) for layer in cache.layers))
        prefills.append((out.logits[row : row + 1, columns.index(length - start - 1)], prefix))
    return prefills


def _media(model: GatedCausalLM, ids: Tensor, images: Sequence[Sequence[EncodedImage]], start: int) -> Media | None:
    """The `Media` of the tokens from `start` on of sequences (B, L), None without images."""
    counts = torch.tensor([len(row) for row in images], device=ids.device)
    max_images = max(map(len, images))
    if not max_images:
        return None
    first = next(image for row in images for image in row)
    latents = first.latents.shape[1]
    mask = media_mask(ids == model.image_token_id, counts, max_images, latents, model.image_attention)[:, start:]
    cache = {}
    rows = [[image.cache for image in row] for row in images]
    if min(map(len, rows)) < max_images:
        blank = {block: tuple(map(torch.zeros_like, pair)) for block, pair in first.cache.items()}
        rows = [row + [blank] * (max_images - len(row)) for row in rows]
    for block in first.cache:
        pairs = [zip(*(image[block] for image in row), strict=True) for row in rows]
        rows_by_kind = zip(*([_cat(kind, 2) for kind in pair] for pair in pairs), strict=True)
        cache[block] = tuple(_cat(kind, 0) for kind in rows_by_kind)
    return Media(None, mask, None if all(images) else counts[:, None] > 0, cache)


def _cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Same as torch.cat, except that a single tensor is not copied."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def _batches(rows: Sequence[int], starts: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Batches of rows with the same start, of at most MAX_TOKENS together, sorted by length."""
    batch: list[int] = []
    for row in sorted(rows, key=lambda row: (starts[row], lengths[row])):
        tokens = (len(batch) + 1) * (lengths[row] - starts[row])
        if batch and (starts[row] != starts[batch[0]] or tokens > MAX_TOKENS):
            yield batch
            batch = []
        batch.append(row)
    yield batch
