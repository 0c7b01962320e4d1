"""Attention of packed rows without computing across samples, on a GPU: flex attention, and torch's flash attention.

Both are attention implementations of transformers by name. They are used for packed rows on a GPU; all else, such as
answers, has torch's fused attention ('sdpa').
"""

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask


def block_mask(sample_ids: Tensor) -> BlockMask:
    """The mask of packed rows for flex attention: a token attends to its own sample (B, L) up to itself."""

    def attends(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (sample_ids[row, query] == sample_ids[row, key]) & (query >= key)

    rows, length = sample_ids.shape
    return create_block_mask(attends, rows, None, length, length, device=sample_ids.device)


def boundaries(sample_ids: Tensor) -> Tensor:
    """Where samples begin in all rows of (B, L) one after the other, and where the last one ends: (1, 1, 1, N + 1).

    The padding of a row counts as a sample. The shape is that of a mask, which transformers' models hand on as it is.
    """
    begins = torch.ones_like(sample_ids, dtype=torch.bool)
    begins[:, 1:] = sample_ids[:, 1:] != sample_ids[:, :-1]
    starts = begins.flatten().nonzero()[:, 0]
    return torch.cat([starts, starts.new_tensor([sample_ids.numel()])]).int()[None, None, None]


def packed_flex(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: object, **kwargs):
    """transformers' flex attention with a `block_mask`, its 'sdpa' with others; arguments are those of transformers."""
    forward = flex_attention_forward if isinstance(attention_mask, BlockMask) else sdpa_attention_forward
    return forward(module, query, key, value, attention_mask, **kwargs)


def packed_varlen(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: object, **kwargs):
    """torch's flash attention of sequences of several lengths with `boundaries`, transformers' 'sdpa' with masks.

    Args:
        query, key, value: (B, heads, L, d), key and value also with fewer heads; the other arguments are transformers'.

    Returns: (B, L, heads, d), and None in the place of attention weights.

    Raises:
        ValueError: what flash attention does not compute: float32, or dropout of attention weights.
    """
    if attention_mask is None or attention_mask.dtype != torch.int32:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    refusal = "language.attn_implementation='packed_varlen' computes"
    if query.dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(f"{refusal} no {query.dtype}: set language.dtype='bfloat16' or train with --amp")
    if kwargs.get("dropout"):
        raise ValueError(f"{refusal} no attention dropout (config.json has {kwargs['dropout']}): choose 'sdpa'")
    rows, heads, length, _ = query.shape
    key, value = (repeat_kv(x, heads // x.shape[1]) for x in (key, value))
    flat = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    starts = attention_mask.flatten()
    causal = dict(scale=kwargs.get("scaling"), window_size=(-1, 0))
    return varlen_attn(*flat, starts, starts, length, length, **causal).unflatten(0, (rows, length)), None


# The masks of packed rows by the name of the attention that takes them.
PACKED_MASKS = {"packed_flex": block_mask, "packed_varlen": boundaries}
for _function in (packed_flex, packed_varlen):
    AttentionInterface.register(_function.__name__, _function)
    AttentionMaskInterface.register(_function.__name__, sdpa_mask)
