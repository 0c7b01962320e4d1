"""Attention and feed-forward layers of Flamingo (Alayrac et al. 2022, arXiv:2204.14198, figures 4 and 5).

Sub-layer names (to_q, to_kv, to_out, and 1 and 3 in the feed-forward) are those of the published OpenFlamingo weights.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn.functional import pad, scaled_dot_product_attention

from .media import Media


def feed_forward(dim: int, mult: int = 4) -> nn.Sequential:
    """Pre-norm feed-forward without biases: (..., dim) -> (..., dim)."""
    inner = dim * mult
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, inner, bias=False),
        nn.GELU(),
        nn.Linear(inner, dim, bias=False),
    )


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, S, heads * d) -> (B, heads, S, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, S, d) -> (B, S, heads * d)."""
    return x.transpose(1, 2).flatten(2)


def computed_as(x: Tensor, weight: Tensor) -> AbstractContextManager:
    """Context manager in which float32 weights, which small training steps need, compute in the input's precision."""
    mixed = weight.dtype == torch.float32 and x.dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(x.device.type, x.dtype) if mixed else nullcontext()


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of queries (B, heads, S, d) to keys and values (B, heads, K, d) -> (B, heads, S, d).

    It is torch's fused one, except in bfloat16 on a CPU, where that takes several times as long, forward and backward,
    as what is written out here (findings/torch_cpu_bfloat16_attention.sh). The fake tensors of the memory planner stand
    for those of a GPU.

    Args:
        mask: (B or 1, 1, S, K) bool, the keys that a query attends to; None: all.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or isinstance(q, FakeTensor):
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) @ v


class PerceiverAttention(nn.Module):
    """Attention of latents to image features and to themselves: (B, P, D), (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, dim_head: int = 64, heads: int = 8):
        super().__init__()
        inner = dim_head * heads
        self.heads = heads
        self.norm_media = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, features: Tensor, latents: Tensor, mask: Tensor | None = None) -> Tensor:
        """features (B, P, D) and latents (B, N, D) -> (B, N, D).

        Args:
            mask: (B, P) bool, the features that latents attend to; None: all.
        """
        features, latents = self.norm_media(features), self.norm_latents(latents)
        q = self.to_q(latents)
        k, v = self.to_kv(torch.cat((features, latents), dim=1)).chunk(2, dim=-1)
        q, k, v = (split_heads(x, self.heads) for x in (q, k, v))
        if mask is not None:
            mask = pad(mask, (0, latents.shape[1]), value=True)[:, None, None].expand(-1, -1, latents.shape[1], -1)
        return self.to_out(merge_heads(attend(q, k, v, mask)))


class MaskedCrossAttention(nn.Module):
    """Cross-attention of tokens to the image latents that `Media.mask` allows; a token without any gets zero."""

    def __init__(self, dim: int, dim_visual: int, index: int, dim_head: int = 64, heads: int = 8):
        super().__init__()
        inner = dim_head * heads
        self.heads, self.index = heads, index
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim_visual, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def keys_values(self, media: Media) -> tuple[Tensor, Tensor]:
        """Keys and values of the latents, each (B, heads, T * N, d), projected only once where there is a cache."""
        if media.cache is not None and self.index in media.cache:
            return media.cache[self.index]
        with computed_as(media.features, self.norm.weight):
            k, v = self.to_kv(media.features.flatten(1, 2)).chunk(2, dim=-1)
        pair = split_heads(k, self.heads), split_heads(v, self.heads)
        if media.cache is not None:
            media.cache[self.index] = pair
        return pair

    def forward(self, x: Tensor, media: Media) -> Tensor:
        """x (B, L, dim) -> (B, L, dim)."""
        if media.mask is not None and not media.mask.shape[-1]:
            return torch.zeros_like(x)
        q = split_heads(self.to_q(self.norm(x)), self.heads)
        k, v = self.keys_values(media)
        if media.mask is None:
            return self.to_out(merge_heads(attend(q, k, v)))
        attends = media.mask.any(dim=-1, keepdim=True)
        # Softmax over nothing is NaN: a token that attends to nothing attends to all, and its result is set to zero.
        mask = (media.mask | ~attends).unsqueeze(1)
        out = merge_heads(attend(q, k, v, mask))
        return self.to_out(out) * attends.to(out.dtype)
