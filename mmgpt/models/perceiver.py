"""Perceiver resampler: any number of patch features of an image -> N latents (Flamingo, arXiv:2204.14198, 2.1)."""

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from mmgpt.registry import MODELS

from .attention import PerceiverAttention, feed_forward


@MODELS.register_module()
class PerceiverResampler(GradientCheckpointingLayer):
    """Resampler of patch features by cross-attention: T images of F frames (B, T, F, P, D) -> latents (B, T, N, D).

    Args:
        dim: D, the width of the image features.
        depth: number of attention + feed-forward layers.
        num_latents: N.
        max_frames: with a number, a learned embedding is added for the frame (F <= max_frames).
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
    ):
        super().__init__()
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

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """(B, T, F, P, D) -> (B, T, N, D).

        Args:
            x: patch features.
            positions: (B, T), the images' positions in their samples; None: 0 to T - 1.

        Raises:
            ValueError: more images or frames than there are embeddings.
        """
        batch, images, frames = x.shape[:3]
        if self.frame_embs is not None:
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
            latents = latents + attention(x, latents)
            latents = latents + feed(latents)
        return self.norm(latents).unflatten(0, (batch, images))

    @staticmethod
    def _check(what: str, count: int, table: Tensor) -> None:
        if count > len(table):
            raise ValueError(f"{count} {what} in a sample, but the resampler has embeddings for {len(table)}")


def resample(perceiver: nn.Module, features: Tensor, real: tuple[Tensor, Tensor], positions: Tensor) -> Tensor:
    """Latents (B, T, N, D) of the images of a batch, zeros where a row has fewer than T images.

    Args:
        perceiver: a PerceiverResampler, or a module like it.
        features: (n, F, P, D), the patch features of all n images.
        real: rows and columns, each (n,), of the images in (B, T).
        positions: (B, T), the images' positions in their samples.
    """
    dtype = next((weight.dtype for weight in perceiver.parameters()), features.dtype)
    latents = perceiver(features.to(dtype)[:, None], positions[real][:, None])[:, 0]
    return latents.new_zeros(*positions.shape, *latents.shape[1:]).index_put(real, latents)
