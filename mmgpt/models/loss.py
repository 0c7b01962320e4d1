"""The loss of the learned tokens; logits are made for them only, a chunk at a time.

With a vocabulary of 32 000 the logits of one position take 128 kB. Those of a chunk are forgotten as soon as its losses
are known, and made again in the backward pass.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from .gated_lm import GatedCausalLM

IGNORE_INDEX = -100  # the label of tokens without a loss: that of torch's cross_entropy


def mean_losses(
    language: GatedCausalLM,
    inputs: dict,
    labels: Tensor,
    samples: Tensor | None,
    sources: Sequence[str] | None,
    chunk: int,
    totals: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The mean loss over the learned tokens of each source: {'loss_visual': ..., 'loss_language': ...}.

    Arguments are those of `token_losses_by_source`, and `totals`, what the sum of each source is divided by instead of
    the number of its tokens here. Then its sources are those that have a loss, be it zero, and 'loss_none' is one where
    it has none at all: processes that train together need a gradient of each.
    """
    if totals is None:
        made = token_losses_by_source(language, inputs, labels, samples, sources, chunk)
        return {f"loss_{name}": total / count for name, (total, count) in made.items()}
    made = token_losses_by_source(language, inputs, labels, samples, sources, chunk, totals or ["none"])
    return {f"loss_{name}": total / totals.get(name, 1) for name, (total, _) in made.items()}


class _Reach(torch.autograd.Function):
    """Hands a loss on, and lets the parameters be part of its graph without a gradient."""

    @staticmethod
    def forward(ctx, loss: Tensor, *parameters: nn.Parameter) -> Tensor:
        ctx.count = len(parameters)
        return loss.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, *[None] * ctx.count


def reaching(losses: dict[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """The same losses, whose graph reaches all these parameters, be it without a gradient."""
    name = next(iter(losses))
    return {**losses, name: _Reach.apply(losses[name], *parameters)}


def token_losses_by_source(
    language: GatedCausalLM,
    inputs: dict,
    labels: Tensor,
    samples: Tensor | None = None,
    sources: Sequence[str] | None = None,
    chunk: int = 1024,
    names: Iterable[str] | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """For each source the sum of its learned tokens' losses, which gradients flow through, and their number.

    Args:
        language, inputs: a language model and the arguments of its forward for a batch.
        labels: (B, L), -100 where nothing is learned.
        samples: (B, L) number of each token's sample; None: each row is a sample.
        sources: the name of each sample's source; None: all are 'text'.
        chunk: number of tokens whose logits exist at once.
        names: the sources to answer for, be it with zero; None: those of the samples.
    """
    places = (labels[:, 1:] != IGNORE_INDEX).nonzero(as_tuple=True)
    losses = _token_losses(language, inputs, places, labels[:, 1:][places], chunk)
    owners = places[0] if samples is None else samples[:, 1:][places]
    sources = sources or ["text"] * labels.numel()
    found = {}
    for name in dict.fromkeys(sources) if names is None else names:
        own = torch.tensor([source == name for source in sources], device=labels.device)[owners]
        found[name] = (losses * own).sum(), own.sum()
    return found


def _token_losses(
    language: GatedCausalLM, inputs: dict, places: tuple[Tensor, Tensor], targets: Tensor, chunk: int
) -> Tensor:
    """Losses (K,) of the K targets that the tokens at `places` (their rows, their columns) are to predict."""
    states, head = _halves(language, inputs)
    chunks = list(zip(states[places].split(chunk), targets.split(chunk), strict=True))
    # The logits of one chunk alone are wanted again at once: nothing would be saved.
    losses = _losses if len(chunks) == 1 else partial(checkpoint, _losses, use_reentrant=False)
    return torch.cat([losses(head, *some) for some in chunks])


def _losses(head: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(head(states).float(), targets, reduction="none")


def _halves(language: GatedCausalLM, inputs: dict) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The last hidden states (B, L, D), and the function that makes logits (K, vocabulary) of some of them (K, D).

    Many families do more than multiply by the head's weights (Gemma 2 limits its logits, Cohere and Granite scale
    them). So both are the model's own forward: one without logits, and one whose layers are left out.
    """
    stack = _Recording(language.get_submodule(language.stack))
    nothing = torch.empty(0, dtype=torch.long, device=inputs["input_ids"].device)
    _with(language, language.stack, stack)(**inputs, use_cache=False, logits_to_keep=nothing)
    head = _with(language, language.stack, _Given(type(stack.output)))
    return stack.output.last_hidden_state, lambda states: head(inputs_embeds=states[None], use_cache=False).logits[0]


def _with(model: nn.Module, path: str, part: nn.Module) -> nn.Module:
    """A model that shares all with the given one but the submodule at a path; the given one does not change."""
    name, _, rest = path.partition(".")
    twin = copy(model)
    twin._modules = {**model._modules, name: _with(model._modules[name], rest, part) if rest else part}
    return twin


class _Recording(nn.Module):
    """A module that keeps its output."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        """As the module, whose arguments these are."""
        self.output = self.module(*args, **kwargs)
        return self.output


class _Given(nn.Module):
    """Stands for a stack of decoder layers whose hidden states are known: its input."""

    def __init__(self, output: type):
        super().__init__()
        self.output = output

    def forward(self, *args, inputs_embeds: Tensor, **kwargs):
        """The hidden states as a stack gives them; the other arguments are the family's."""
        return self.output(last_hidden_state=inputs_embeds)
