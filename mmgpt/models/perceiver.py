"""Perceiver resampler: any number of patch features of an image -> N latents (Flamingo, arXiv:2204.14198, 2.1)."""

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from mmgpt.registry import MODELS

from .attention import PerceiverAttention, feed_forward
from .tiles import tile_places


@MODELS.register_module()
class PerceiverResampler(GradientCheckpointingLayer):
    """Resampler of patch features by cross-attention: T images of F frames (B, T, F, P, D) -> latents (B, T, N, D).

    Args:
        dim: D, the width of the image features.
        depth: number of attention + feed-forward layers.
        num_latents: N.
        max_frames: with a number, a learned embedding is added for the frame (F <= max_frames).
        max_tiles: with a number, the learned embeddings are those of the places that the tiles of an image have, which
            is cut into at most so many (see `tile_places`).
        max_media: with a number, a learned embedding is added for the position of the image in its sample.
    """

    def __init__(
        self,
        dim: int,
        depth: int = 6,
        num_latents: int = 64,
        dim_head: int = 64,
        heads: int = 8,
        ff_mult: int = 4,
        max_frames: int | None = None,
        max_media: int | None = None,
        max_tiles: int | None = None,
    ):
        if max_frames and max_tiles:
            raise ValueError(f"max_frames={max_frames} and max_tiles={max_tiles}: choose one of them")
        super().__init__()
        max_frames = len(tile_places(max_tiles)) if max_tiles else max_frames
        self.latents = nn.Parameter(torch.randn(num_latents, dim))
        self.frame_embs = nn.Parameter(torch.randn(max_frames, dim)) if max_frames else None
        self.media_time_embs = nn.Parameter(torch.randn(max_media, 1, dim)) if max_media else None
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(dim, dim_head, heads), feed_forward(dim, ff_mult)]) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    @property
    def takes_positions(self) -> bool:
        """Whether the latents of an image depend on its position in its sample."""
        return self.media_time_embs is not None

    def forward(self, x: Tensor, positions: Tensor | None = None, tile_ids: Tensor | None = None) -> Tensor:
        """(B, T, F, P, D) -> (B, T, N, D).

        Args:
            x: patch features.
            positions: (B, T), the images' positions in their samples; None: 0 to T - 1.
            tile_ids: (B, T, F), the places of the frames in their images, -1 for padding, which no latent attends to;
                None: 0 to F - 1.

        Raises:
            ValueError: more images or frames than there are embeddings.
        """
        batch, images, frames, patches = x.shape[:4]
        mask = None
        if tile_ids is not None:
            x = x + self.frame_embs[tile_ids.clamp(min=0)][..., None, :]
            mask = (tile_ids >= 0).flatten(0, 1).repeat_interleave(patches, dim=1)
        elif self.frame_embs is not None:
            self._check("frames", frames, self.frame_embs)
            x = x + self.frame_embs[:frames, None]
        x = x.flatten(2, 3)
        if self.media_time_embs is not None:
            positions = torch.arange(images, device=x.device) if positions is None else positions
            if positions.numel():
                self._check("images", int(positions.max()) + 1, self.media_time_embs)
            x = x + self.media_time_embs[positions]
        x = x.flatten(0, 1)
        latents = self.latents.expand(batch * images, -1, -1)
        for attention, feed in self.layers:
            latents = latents + attention(x, latents, mask)
            latents = latents + feed(latents)
        return self.norm(latents).unflatten(0, (batch, images))

    @staticmethod
    def _check(what: str, count: int, table: Tensor) -> None:
        if count > len(table):
            raise ValueError(f"{count} {what} in a sample, but the resampler has embeddings for {len(table)}")


def resample(
    perceiver: nn.Module,
    features: Tensor,
    real: tuple[Tensor, Tensor],
    positions: Tensor,
    tile_ids: Tensor | None = None,
) -> Tensor:
    """Latents (B, T, N, D) of the images of a batch, zeros where a row has fewer than T images.

    Args:
        perceiver: a PerceiverResampler, or a module like it.
        features: (n, F, P, D), the patch features of all n images.
        real: rows and columns, each (n,), of the images in (B, T).
        positions: (B, T), the images' positions in their samples.
        tile_ids: (n, F), the places of the frames in their images, -1 for padding; None: the images are not tiled.

    Raises:
        ValueError: the resampler has no embedding of a place.
    """
    tiles = []
    if tile_ids is not None:
        check_tiles(perceiver, int(tile_ids.max()) + 1)
        tiles = [tile_ids[:, None]]
    dtype = next((weight.dtype for weight in perceiver.parameters()), features.dtype)
    latents = perceiver(features.to(dtype)[:, None], positions[real][:, None], *tiles)[:, 0]
    return latents.new_zeros(*positions.shape, *latents.shape[1:]).index_put(real, latents)


def check_tiles(perceiver: nn.Module, places: int) -> None:
    """Raises a ValueError unless a resampler has embeddings of the first `places` places of tiles."""
    embeddings = getattr(perceiver, "frame_embs", None)
    known = 0 if embeddings is None else len(embeddings)
    if places > known:
        raise ValueError(
            f"the images have tiles in {places} places, the resampler ({type(perceiver).__name__}) has frame_embs for "
            f"{known}: set its max_tiles to the max of the tiles of PrepareImages, or leave the tiles out"
        )
