"""Cross-entropy of the label tokens: logits are made for them only, a chunk at a time.

With a vocabulary of 32 000 the logits of one token take 128 kB. Those of a chunk are freed as soon as its losses are
computed, and made again in the backward pass.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

IGNORE_INDEX = -100  # the label of tokens without a loss: that of torch's cross_entropy


def chunked_cross_entropy(
    states: Tensor, targets: Tensor, logits: Callable[[Tensor], Tensor], chunk: int = 1024
) -> Tensor:
    """The loss of each target: (K,).

    Args:
        states: (K, D), the hidden states that the targets are predicted from.
        targets: (K,), ids of tokens.
        logits: the output head, (K, D) -> (K, vocabulary), as `GatedCausalLM.hidden_states` returns it.
        chunk: number of targets whose logits exist at once.
    """
    if len(states) <= chunk:
        return cross_entropy(logits(states).float(), targets, reduction="none")
    pairs = zip(states.split(chunk), targets.split(chunk), strict=True)
    # Each chunk ends in the branch above; the backward pass computes it again.
    return torch.cat([checkpoint(chunked_cross_entropy, *pair, logits, chunk, use_reentrant=False) for pair in pairs])


def sums_by_source(
    losses: Tensor, sample_ids: Tensor, sources: Sequence[str], names: Iterable[str] | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """For each source the sum of its tokens' losses, which gradients flow through, and the number of its tokens.

    Args:
        losses: (K,) of label tokens.
        sample_ids: (K,), the sample of each.
        sources: the name of each sample's source.
        names: the sources to sum up, also those without a token; None: the sources of the samples.
    """
    sums = {}
    for name in dict.fromkeys(sources) if names is None else names:
        of_source = torch.tensor([source == name for source in sources], device=losses.device)[sample_ids]
        sums[name] = (losses * of_source).sum(), of_source.sum()
    return sums


class _Attach(torch.autograd.Function):
    """Identity of a loss that adds parameters to its graph, without gradients."""

    @staticmethod
    def forward(ctx, loss: Tensor, *parameters: nn.Parameter) -> Tensor:
        ctx.count = len(parameters)
        return loss.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, *[None] * ctx.count


def attach_to_graph(losses: dict[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """The same losses, with all these parameters in their graph; those that no loss depends on get no gradient."""
    name = next(iter(losses))
    return {**losses, name: _Attach.apply(losses[name], *parameters)}
