"""The images of a batch, and which of them each token attends to (Flamingo, arXiv:2204.14198, section 2.3)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

IMAGE_ATTENTION = ("latest", "next")


class Media(NamedTuple):
    """Images as an argument of every gated block: latents, and masks that say which tokens attend to them.

    Attributes:
        features: (B, T, N, D), N latents of each of T images; None where the cache has their keys and values, or where
            no token attends to any (a mask without columns).
        mask: (B, L, T * N) bool, the latents that a token attends to; None: all of them; without columns: none.
        has_image: (B, L), or (B, 1) for whole rows, bool: tokens of samples with an image. The others pass the gated
            blocks unchanged. None: all samples have one.
        cache: keys and values of `features` by layer index, filled in the first step of a generation; None computes
            them in each step.
        tokens: rows (R, 1) and columns (R, K) of the tokens that go through the gated blocks (see
            `only_tokens_with_images`); then B and L above are R and K. None: all tokens.
    """

    features: Tensor | None
    mask: Tensor | None
    has_image: Tensor | None
    cache: dict[int, tuple[Tensor, Tensor]] | None = None
    tokens: tuple[Tensor, Tensor] | None = None


def apply_block(block: Callable[[Tensor], Tensor], hidden_states: Tensor, media: Media) -> Tensor:
    """Hidden states (B, L, dim) after a block that only tokens of samples with an image go through: (B, L, dim).

    Args:
        block: a function (R, K, dim) -> (R, K, dim) of the tokens that `media` is about.
    """
    rows = hidden_states if media.tokens is None else hidden_states[media.tokens]
    updated = block(rows)
    if media.has_image is not None:
        updated = torch.where(media.has_image[..., None], updated, rows)
    return updated if media.tokens is None else hidden_states.index_put(media.tokens, updated)


def count_images(is_image: Tensor, images: int, image_counts: Tensor | None) -> Tensor:
    """Number of images of each row: (B,).

    Args:
        is_image: (B, L) bool, the `<image>` tokens.
        images: T, the most images that a row can have.
        image_counts: (B,) number of images of each row; None: T.

    Raises:
        ValueError: a row has another number of `<image>` tokens.
    """
    tokens = is_image.sum(dim=1)
    counts = torch.full_like(tokens, images) if image_counts is None else image_counts.clamp(max=images)
    differs = tokens != counts
    # The published code takes such rows, and lets tokens attend to an image of another token or to none.
    if differs.any():
        row = differs.nonzero()[0].item()
        raise ValueError(
            f"row {row} has {tokens[row].item()} `<image>` tokens and {counts[row].item()} images: "
            "each image needs one token"
        )
    return counts


def media_of(
    features: Tensor, is_image: Tensor, image_counts: Tensor, image_attention: str, sample_ids: Tensor | None = None
) -> Media:
    """The `Media` of a batch with images.

    Args:
        features: (B, T, N, D).
        is_image, image_counts, image_attention: as for `attended_images`.
        sample_ids: (B, L), the sample of each token in packed rows (see `packing`), whose tokens attend to images of
            their own sample; None: each row is a sample.
    """
    images, latents = features.shape[1:3]
    same_sample = None
    if sample_ids is not None:
        same_sample = sample_ids[:, :, None] == image_samples(is_image, sample_ids, images)[:, None, :]
    mask = media_mask(is_image, image_counts, images, latents, image_attention, same_sample)
    return Media(features, mask, image_counts[:, None] > 0 if same_sample is None else same_sample.any(dim=-1))


def only_tokens_with_images(media: Media | None, length: int) -> Media | None:
    """The `Media` of the tokens of samples with an image alone, in rows as long as the largest number of them in a row.

    Args:
        media: of whole rows, without a cache; None gives None.
        length: L, the tokens of a row.
    """
    if media is None:
        return None
    has_image = media.has_image.expand(-1, length)
    rows, longest = has_image.any(dim=1).nonzero(), int(has_image.sum(dim=1).max())
    # In a batch without real images all tokens go through the blocks, so that every weight has a gradient.
    if not longest or (len(rows), longest) == has_image.shape:
        return media
    columns = (~has_image[rows[:, 0]]).int().argsort(dim=1, stable=True)[:, :longest].contiguous()
    features, mask = media.features[rows[:, 0]], media.mask[rows, columns]
    return Media(features, mask, has_image[rows, columns], tokens=(rows, columns))


def attended_images(is_image: Tensor, image_counts: Tensor, image_attention: str) -> Tensor:
    """The index of the image that each token attends to, -1 for none: (B, L).

    Args:
        is_image: (B, L) bool, the `<image>` tokens.
        image_counts: (B,) number of images of each row.
        image_attention: 'latest' (the latest image at or before the token: the Flamingo paper, OpenFlamingo v2) or
            'next' (an `<image>` token attends to its own image, any other token to the next one after it: the
            published MultiModal-GPT).
    """
    images_so_far = is_image.long().cumsum(dim=1)
    if image_attention == "latest":
        index = images_so_far - 1
    else:
        index = images_so_far - is_image.long()
        index = index.masked_fill(index >= images_so_far[:, -1:], -1)
    return index.masked_fill(index >= image_counts[:, None], -1)


def media_mask(
    is_image: Tensor,
    image_counts: Tensor,
    images: int,
    latents: int,
    image_attention: str,
    same_sample: Tensor | None = None,
) -> Tensor:
    """Which latents each token attends to: (B, L, T * N) bool.

    Args:
        is_image, image_counts, image_attention: as for `attended_images`; further images of a row are padding.
        images, latents: T and N.
        same_sample: (B, L, T) bool, the images of each token's own sample; None: all of its row.
    """
    index = attended_images(is_image, image_counts, image_attention)
    attends = index[..., None] == torch.arange(images, device=is_image.device)
    if same_sample is not None:
        attends = attends & same_sample
    return attends.repeat_interleave(latents, dim=-1)


def image_samples(is_image: Tensor, sample_ids: Tensor, images: int) -> Tensor:
    """The sample of each image: is_image and sample_ids (B, L) -> (B, T); -2, which no token has, for padding."""
    row, column = is_image.nonzero(as_tuple=True)
    index = (is_image.long().cumsum(dim=1) - 1)[row, column]
    samples = sample_ids.new_full((len(sample_ids), images), -2)
    samples[row, index] = sample_ids[row, column]
    return samples


def positions_in_samples(samples: Tensor) -> Tensor:
    """The number of images of its own sample before each image: `image_samples` (B, T) -> (B, T)."""
    return (samples[:, :, None] == samples[:, None, :]).tril(-1).sum(dim=-1)
