"""Attention of packed rows without computing across samples: flex attention, torch's flash attention, and eager.

They are attention implementations of transformers by name. The first two are used for packed rows on a GPU; all else,
such as answers, has torch's fused attention ('sdpa'). The third one is the model's own 'eager' throughout.
"""

import sys
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

# The families whose attention is nothing but the function `eager_attention_forward` of their file, as tested.
BY_SAMPLES = tuple(
    "llama mistral mixtral qwen2 qwen3 qwen3_moe gemma2 gemma3_text phi3 olmo2 granite cohere gpt_neox opt".split()
)
# A sample for which fewer scores are spared, of a head and a pair of tokens of two samples, is not worth the calls of
# an attention of its own. (Forward and backward pass on one core of an AMD EPYC: 0.5 ms a sample, 8 ns a score.)
LEAST_SPARED = 2**16


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


def packed_eager(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: object, **kwargs):
    """The 'eager' attention of a model of BY_SAMPLES, with `boundaries` of one sample after the other.

    Args:
        query, key, value: (B, heads, L, d), key and value also with fewer heads; the other arguments are transformers'.

    Returns: (B, L, heads, d), and the attention weights, with `boundaries` None.
    """
    # It is in the file of the module's class, which may be wrapped (FSDP).
    files = (sys.modules[each.__module__] for each in type(module).__mro__)
    eager = next(file.eager_attention_forward for file in files if hasattr(file, "eager_attention_forward"))
    if attention_mask is None or attention_mask.dtype != torch.int32:
        return eager(module, query, key, value, attention_mask, **kwargs)
    return _by_samples(eager, module, query, key, value, attention_mask, **kwargs), None


@torch.compiler.disable  # It would be compiled for the boundaries of each batch.
def _by_samples(
    eager: Callable, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, starts: Tensor, **kwargs
) -> Tensor:
    """`packed_eager` with boundaries, `starts`: (B, L, heads, d). The keywords are those of `eager`."""
    rows, _, length, _ = query.shape
    samples = list(pairwise(starts.flatten().tolist()))
    longest = max(end - start for start, end in samples)
    lowest = torch.finfo(query.dtype).min
    causal = torch.full((1, 1, longest, longest), lowest, dtype=query.dtype, device=query.device).triu(1)
    outputs = []
    for start, end in samples:
        row, first = divmod(start, length)
        own = (x[row : row + 1, :, first : first + end - start] for x in (query, key, value))
        outputs.append(eager(module, *own, causal[..., : end - start, : end - start], **kwargs)[0])
    return torch.cat(outputs, dim=1).unflatten(1, (rows, length))[0]


def packed_mask(attention: str | None, sample_ids: Tensor, heads: int) -> object | None:
    """The mask of packed rows (B, L) for an attention implementation; None where it takes one of pairs of tokens.

    Args:
        heads: number of heads of a layer.
    """
    if attention not in PACKED_MASKS or not (sample_ids.is_cuda or attention == "packed_eager"):
        return None
    mask = PACKED_MASKS[attention](sample_ids)
    if attention == "packed_eager":
        lengths = mask.flatten().diff()
        spared = sample_ids.numel() * sample_ids.shape[1] - int(lengths.square().sum())
        if spared * heads < LEAST_SPARED * len(lengths):
            return None
    return mask


# The masks of packed rows by the name of the attention that takes them.
PACKED_MASKS = {"packed_flex": block_mask, "packed_varlen": boundaries, "packed_eager": boundaries}
for _function, _mask in ((packed_flex, sdpa_mask), (packed_varlen, sdpa_mask), (packed_eager, eager_mask)):
    AttentionInterface.register(_function.__name__, _function)
    AttentionMaskInterface.register(_function.__name__, _mask)
