"""Several samples in one row of text: what keeps them apart in a language model.

Rows are described by `samples` (B, L): for each token the number of its sample, -1 for padding.
"""

import inspect

import torch
from torch import Tensor
from transformers import PreTrainedModel

# Their positions lie in the attention itself (ALiBi), so that the mask alone keeps samples apart.
WITHOUT_POSITIONS = ("mpt",)
# Layers that obey a mask. Others (convolution, state space, linear attention) carry the end of a sample into the next.
MASKABLE = {"full_attention", "sliding_attention", "attention"}


def positions(samples: Tensor) -> Tensor:
    """Place of each token in its sample, from 0 on, likewise in the padding: (B, L) -> (B, L)."""
    place = torch.arange(samples.shape[1], device=samples.device).expand_as(samples)
    begins = torch.ones_like(samples, dtype=torch.bool)
    begins[:, 1:] = samples[:, 1:] != samples[:, :-1]
    return place - (place * begins).cummax(dim=1).values


def takes_positions(model: PreTrainedModel) -> bool:
    """Whether a language model is told the places of its tokens; others find them by the mask, or need none (ALiBi)."""
    return "position_ids" in inspect.signature(model.forward).parameters


def is_attention_only(model: PreTrainedModel) -> bool:
    """Whether all layers of a language model are MASKABLE: keys and values are all that they keep of a text."""
    config = model.config
    layers = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()
    return MASKABLE.issuperset(layers)


def packed_inputs(model: PreTrainedModel, samples: Tensor) -> dict[str, Tensor]:
    """Arguments with which each token of `samples` (B, L) attends to its own sample only, at its place in it.

    A mask for each pair of tokens is what transformers' models hand to their attention as it is. (Positions that start
    again would do for most, but not for OPT, which makes a mask of ones where it gets none.)

    Raises:
        ValueError: the model takes no positions, has layers that no mask keeps apart, its attention takes no such mask,
            or has a window shorter than a row.
    """
    config = model.config
    attention, window = config._attn_implementation or "", getattr(config, "sliding_window", None)
    mixed = not is_attention_only(model) or getattr(config, "alibi", False)
    told = takes_positions(model)
    if "flash" in attention or mixed or not (told or config.model_type in WITHOUT_POSITIONS):
        raise ValueError(
            f"rows of several samples are not possible with {config.model_type!r} (attention {attention!r})"
        )
    if window and window < samples.shape[1]:
        raise ValueError(f"rows of {samples.shape[1]} tokens, more than the window of {config.model_type!r}, {window}")
    inputs = {"attention_mask": _mask(samples, model.dtype)}
    return {**inputs, "position_ids": positions(samples)} if told else inputs


def _mask(samples: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores: 0 for tokens of the same sample up to the token itself: (B, 1, L, L)."""
    own = (samples[:, None, :] == samples[:, :, None]).tril()
    return torch.zeros_like(own, dtype=dtype).masked_fill(~own, torch.finfo(dtype).min)[:, None]
