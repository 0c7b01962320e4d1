"""How far results may lie apart that are equal but for rounding.

Two ways to compute a sum (a batch or its rows, a cache or none, chunks, shards, other processors) add the same terms in
another order, and round differently. With rounding errors of random sign the results differ by about
`sqrt(terms) * eps * size`, where size is that of the largest partial sums (Higham, Accuracy and Stability of Numerical
Algorithms, second edition, sections 2.8 and 4.2). A result that is small because its terms cancel keeps their error.

Results are equal to the bit only where the same operations run in the same order on tensors of the same shapes.
"""

import torch
from torch.utils._pytree import tree_leaves, tree_map

# The tiny models: four layers, their gated blocks and the head, each of sums over 32 to 128 terms, and the way back.
TERMS = 3000
# What small results (of gates: a sum over all tokens and channels) are of the largest ones whose terms they share.
CANCELLED = 0.02


def rounding(terms: int, size: float, dtype: torch.dtype = torch.float32) -> float:
    """The largest difference of two sums of `terms` terms that reach `size`: four times what is expected."""
    return 4 * terms**0.5 * torch.finfo(dtype).eps * size


def assert_close(ours: object, theirs: object, terms: int = TERMS, what: str = "") -> None:
    """Tensors, or dicts and lists of them that are computed together, are equal but for rounding.

    Args:
        terms: added up one after the other for a result.
        what: for the message.
    """
    sizes = tree_map(lambda value: value.detach().abs().max().item() if value.numel() else 0.0, theirs)
    largest = max(tree_leaves(sizes))
    for value, other, size in zip(*map(tree_leaves, (ours, theirs, sizes)), strict=True):
        allowed = rounding(terms, max(size, CANCELLED * largest), other.dtype)
        torch.testing.assert_close(value, other, rtol=0, atol=allowed, msg=lambda text: f"{what} {text}")


def assert_equal_checkpoints(ours: dict, theirs: dict, lr: float) -> None:
    """Checkpoints of runs with AdamW that learned the same, but for the order of sums."""
    # A hundredth of a step: where gradients are smaller than AdamW's eps, their rounding is divided by it.
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=0, atol=lr / 100)
    assert ours["optimizer"]["param_groups"] == theirs["optimizer"]["param_groups"]
    states, others = ours["optimizer"]["state"], theirs["optimizer"]["state"]
    assert states.keys() == others.keys()
    for kind in ("step", "exp_avg", "exp_avg_sq"):
        assert_close({i: states[i][kind] for i in others}, {i: others[i][kind] for i in others}, what=kind)
