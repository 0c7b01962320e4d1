"""What a device does at most, as measured: products of matrices, and the moving of bytes."""

from typing import NamedTuple

import torch

from .rounds import Timer

ROUNDS = 10
# Large enough that starting a product, and caches, do not count.
WIDTH = {"cpu": 1024, "cuda": 8192}
BYTES = {"cpu": 2**28, "cuda": 2**30}


class Limits(NamedTuple):
    """Multiplications and additions of matrix products a second, and bytes of memory read or written a second."""

    operations: float
    bytes: float


def limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """The best of some rounds.

    Args:
        dtype: of the matrices.
    """
    width, size, timer = WIDTH[device.type], BYTES[device.type], Timer(device, own=True)
    matrix, out = (torch.ones(width, width, device=device, dtype=dtype) for _ in range(2))
    source, target = (torch.ones(size, device=device, dtype=torch.uint8) for _ in range(2))

    def best(work) -> float:
        return min(timer(work) for _ in range(ROUNDS))

    product = best(lambda: torch.mm(matrix, matrix, out=out))
    return Limits(2 * width**3 / product, 2 * size / best(lambda: target.copy_(source)))


def share(row: dict, most: Limits) -> dict[str, float]:
    """`share`, how much of what the device can do a row does: of products in training, of memory in decoding.

    Nothing for rows without `operations`, and without `weight_bytes`, the weights that each token is multiplied by.
    """
    if "operations" in row:
        return {"share": row["operations"] / row["seconds"] / most.operations}
    if "weight_bytes" in row:
        return {"share": row["weight_bytes"] / row["seconds"] / most.bytes}
    return {}
