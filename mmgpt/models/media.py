"""The images of a batch as its text may read them (Flamingo, arXiv:2204.14198, section 2.3)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

READING_RULES = ("latest", "next")


class Media(NamedTuple):
    """What the text may read of the images, handed as an argument to every gated layer.

    features (B, T, N, D): N latents of each of T images; None where the cache has their keys and values. mask
    (B, L, T * N) bool: the latents a token may read; None: all of them; without columns: none. has_image (B, L), or
    (B, 1) for whole rows, bool: tokens of samples with an image, the others pass the gated blocks unchanged; None: all
    have one. cache: keys and values of `features` by block number, filled at the first step of a generation; None
    computes them each time. tokens: rows (R, 1) and columns (R, K) of the tokens that all this is about, where gated
    blocks leave the others out (see `narrowed`); then B and L above are R and K.
    """

    features: Tensor | None
    mask: Tensor | None
    has_image: Tensor | None
    cache: dict[int, tuple[Tensor, Tensor]] | None = None
    tokens: tuple[Tensor, Tensor] | None = None


def apply_block(block: Callable[[Tensor], Tensor], hidden_states: Tensor, media: Media) -> Tensor:
    """Hidden states (B, L, dim) after a block that only tokens of samples with an image go through: (B, L, dim).

    Args:
        block: a function (R, K, dim) -> (R, K, dim) of the tokens that `media` is about; see `Media`.
    """
    rows = hidden_states if media.tokens is None else hidden_states[media.tokens]
    updated = block(rows)
    if media.has_image is not None:
        updated = torch.where(media.has_image[..., None], updated, rows)
    return updated if media.tokens is None else hidden_states.index_put(media.tokens, updated)


def count_images(is_image: Tensor, places: int, image_counts: Tensor | None) -> Tensor:
    """Number of images of each row: (B,).

    Args:
        is_image: (B, L) bool, the `<image>` tokens.
        places: T, for images of a row.
        image_counts: (B,) how many of them are taken; None: T.

    Raises:
        ValueError: a row has not as many `<image>` tokens.
    """
    tokens = is_image.sum(dim=1)
    counts = torch.full_like(tokens, places) if image_counts is None else image_counts.clamp(max=places)
    wrong = tokens != counts
    # The published code reads such rows anyway, each image by another token than its own or by none.
    if wrong.any():
        row = wrong.nonzero()[0].item()
        raise ValueError(
            f"row {row} has {tokens[row].item()} `<image>` tokens and {counts[row].item()} images: "
            "each image needs one token"
        )
    return counts


def media_of(
    features: Tensor, is_image: Tensor, image_counts: Tensor, reading: str, samples: Tensor | None = None
) -> Media:
    """The `Media` of a batch with images.

    Args:
        features: (B, T, N, D).
        is_image, image_counts, reading: as for `images_read`.
        samples: (B, L), the sample of each token in rows of several (see `packing`), which see their own images.
    """
    images, latents = features.shape[1:3]
    owners = None
    if samples is not None:
        owners = samples[:, :, None] == image_samples(is_image, samples, images)[:, None, :]
    mask = media_mask(is_image, image_counts, images, latents, reading, owners)
    return Media(features, mask, image_counts[:, None] > 0 if owners is None else owners.any(dim=-1))


def narrowed(media: Media | None, length: int) -> Media | None:
    """The same for the tokens of samples with an image only, in rows as long as the longest of their texts together.

    Args:
        media: of whole rows, without a cache; None gives None.
        length: L, the tokens of a row.
    """
    if media is None:
        return None
    has = media.has_image.expand(-1, length)
    rows, longest = has.any(dim=1).nonzero(), int(has.sum(dim=1).max())
    # Blank pictures: all take part, so that every weight has a gradient.
    if not longest or (len(rows), longest) == has.shape:
        return media
    columns = (~has[rows[:, 0]]).int().argsort(dim=1, stable=True)[:, :longest].contiguous()
    features, mask = media.features[rows[:, 0]], media.mask[rows, columns]
    return Media(features, mask, has[rows, columns], tokens=(rows, columns))


def images_read(is_image: Tensor, image_counts: Tensor, reading: str) -> Tensor:
    """The number of the image that each token reads, from 0 on, -1 for none: (B, L).

    Args:
        is_image: (B, L) bool, the `<image>` tokens.
        image_counts: (B,) number of images of each row.
        reading: 'latest' (the latest image at or before the token: the Flamingo paper, OpenFlamingo v2) or 'next' (an
            `<image>` token reads its own image, any other token the next one after it: the published MultiModal-GPT).
    """
    seen = is_image.long().cumsum(dim=1)
    if reading == "latest":
        index = seen - 1
    else:
        index = seen - is_image.long()
        index = index.masked_fill(index >= seen[:, -1:], -1)
    return index.masked_fill(index >= image_counts[:, None], -1)


def media_mask(
    is_image: Tensor, image_counts: Tensor, images: int, latents: int, reading: str, owners: Tensor | None = None
) -> Tensor:
    """Which latents each token may read: (B, L, T * N) bool.

    Args:
        is_image, image_counts, reading: as for `images_read`; the rest of the T places of a row is padding.
        images, latents: T and N.
        owners: (B, L, T) bool, the images of each token's own sample; None: all of its row.
    """
    index = images_read(is_image, image_counts, reading)
    reads = index[..., None] == torch.arange(images, device=is_image.device)
    if owners is not None:
        reads = reads & owners
    return reads.repeat_interleave(latents, dim=-1)


def image_samples(is_image: Tensor, samples: Tensor, images: int) -> Tensor:
    """The sample of each image: is_image and samples (B, L) -> (B, T); -2, which no token has, where there is none."""
    row, place = is_image.nonzero(as_tuple=True)
    number = (is_image.long().cumsum(dim=1) - 1)[row, place]
    owners = samples.new_full((len(samples), images), -2)
    owners[row, number] = samples[row, place]
    return owners


def places_in_samples(owners: Tensor) -> Tensor:
    """How many images of its own sample come before each: `image_samples` (B, T) -> (B, T)."""
    return (owners[:, :, None] == owners[:, None, :]).tril(-1).sum(dim=-1)
