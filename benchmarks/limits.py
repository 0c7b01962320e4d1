"""What a device does at most, as measured: products of matrices, and the moving of bytes."""

from typing import NamedTuple

import torch

from .rounds import Timer

ROUNDS = 10
# Large enough that starting a product, and caches, do not count.
WIDTH, WIDTH_ON_CPU = 8192, 1024
BYTES = 2**28


class Limits(NamedTuple):
    """Multiplications and additions of matrix products a second, and bytes of memory read or written a second."""

    operations: float
    bytes: float


def limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """The best of some rounds.

    Args:
        dtype: of the matrices.
    """
    width, timer = WIDTH_ON_CPU if device.type == "cpu" else WIDTH, Timer(device, own=True)
    # Random numbers: products of equal ones take a GPU less power, and less time.
    matrix, out = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))
    source, target = (torch.ones(BYTES, device=device, dtype=torch.uint8) for _ in range(2))

    def best(work) -> float:
        return min(timer(work) for _ in range(ROUNDS))

    product = best(lambda: torch.mm(matrix, matrix, out=out))
    return Limits(2 * width**3 / product, 2 * BYTES / best(lambda: target.copy_(source)))


def share(row: dict, most: Limits) -> dict[str, float]:
    """`share`, how much of what the device can do a row does: of products in training, of memory in decoding.

    Nothing for rows without `operations`, and without `weight_bytes`, the weights that each token is multiplied by.
    """
    if "operations" in row:
        return {"share": row["operations"] / row["seconds"] / most.operations}
    if "weight_bytes" in row:
        return {"share": row["weight_bytes"] / row["seconds"] / most.bytes}
    return {}
