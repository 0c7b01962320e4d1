"""Packed rows: several samples in one row of tokens, and what keeps them apart in a language model.

`sample_ids` (B, L) describe such rows: the number of each token's sample, -1 for padding. `turn_ids` (B, L) describe
samples whose turns see nothing of each other: the number of each token's turn, 0 for what the turns share.
"""

import inspect

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .packed_attention import packed_mask

# Families whose positions are part of the attention itself (ALiBi), so that the mask alone keeps samples apart.
WITHOUT_POSITIONS = ("mpt",)
# Layers that obey a mask. Others (convolution, state space, linear attention) carry the end of a sample into the next.
MASKABLE = {"full_attention", "sliding_attention", "attention"}


def positions(sample_ids: Tensor, turn_ids: Tensor | None = None) -> Tensor:
    """Position of each token in its sample, from 0 on, likewise in the padding: (B, L) -> (B, L).

    With `turn_ids` every turn begins behind what the turns share.
    """
    column = torch.arange(sample_ids.shape[1], device=sample_ids.device).expand_as(sample_ids)
    begins = torch.ones_like(sample_ids, dtype=torch.bool)
    begins[:, 1:] = sample_ids[:, 1:] != sample_ids[:, :-1]
    if turn_ids is None:
        return column - (column * begins).cummax(dim=1).values
    begins[:, 1:] |= turn_ids[:, 1:] != turn_ids[:, :-1]
    shared = (same_sample(sample_ids) & (turn_ids == 0)[:, None, :]).sum(dim=-1)
    return column - (column * begins).cummax(dim=1).values + shared * (turn_ids > 0)


def same_sample(sample_ids: Tensor) -> Tensor:
    """Whether two tokens are of one sample: (B, L) -> (B, L, L)."""
    return sample_ids[:, None, :] == sample_ids[:, :, None]


def takes_positions(model: PreTrainedModel) -> bool:
    """Whether a language model takes `position_ids`; others derive them from the mask, or need none (ALiBi)."""
    return "position_ids" in inspect.signature(model.forward).parameters


def is_attention_only(model: PreTrainedModel) -> bool:
    """Whether all layers of a language model are MASKABLE, so that its KV cache is its whole state of a sequence."""
    config = model.config
    layers = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()
    return MASKABLE.issuperset(layers)


def takes_pair_masks(model: PreTrainedModel) -> bool:
    """Whether a language model's layers obey a mask for each pair of tokens, and nothing else decides what they see."""
    attention = model.config._attn_implementation or ""
    return "flash" not in attention and is_attention_only(model) and not getattr(model.config, "alibi", False)


def packed_inputs(model: PreTrainedModel, sample_ids: Tensor, turn_ids: Tensor | None = None) -> dict[str, Tensor]:
    """Arguments with which each token of `sample_ids` (B, L) attends to its own sample only, at its position in it.

    With `turn_ids` (B, L) it attends to its own turn, and to what the turns of its sample share.

    transformers' models hand a mask for each pair of tokens to their attention as it is, and so do those of
    `packed_attention`, which are not made of separate turns. (Positions that start again
    would do for most models, but not for OPT, which makes a mask of ones where it gets none.)

    Raises:
        ValueError: the model takes no positions, has layers that no mask keeps apart, its attention takes no such mask,
            or has a window shorter than a row.
    """
    config = model.config
    window, with_positions = getattr(config, "sliding_window", None), takes_positions(model)
    if not takes_pair_masks(model) or not (with_positions or config.model_type in WITHOUT_POSITIONS):
        raise ValueError(
            f"rows of several samples are not possible with {config.model_type!r} (attention "
            f"{config._attn_implementation!r})"
        )
    if turn_ids is not None and not with_positions:
        raise ValueError(f"separate turns are not possible with {config.model_type!r}, whose positions are not given")
    if window and window < sample_ids.shape[1]:
        raise ValueError(
            f"rows of {sample_ids.shape[1]} tokens, more than the window of {config.model_type!r}, {window}"
        )
    heads = config.get_text_config().num_attention_heads
    mask = packed_mask(config._attn_implementation, sample_ids, heads) if turn_ids is None else None
    if mask is not None:
        inputs = {"attention_mask": mask}
    else:
        # What is added to attention scores (B, 1, L, L): 0 for tokens of the same sample up to the token itself.
        attends = same_sample(sample_ids).tril()
        if turn_ids is not None:
            attends &= (turn_ids[:, None, :] == turn_ids[:, :, None]) | (turn_ids == 0)[:, None, :]
        mask = torch.zeros_like(attends, dtype=model.dtype).masked_fill(~attends, torch.finfo(model.dtype).min)
        inputs = {"attention_mask": mask[:, None]}
    return {**inputs, "position_ids": positions(sample_ids, turn_ids)} if with_positions else inputs
