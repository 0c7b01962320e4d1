"""Measured limits of a device: matrix products and memory traffic."""

from typing import NamedTuple

import torch

from .rounds import Timer

ROUNDS = 10
# Matrices and buffers are large, so that launch overhead and caches are negligible.
WIDTH, WIDTH_ON_CPU = 8192, 1024
BYTES, BYTES_ON_CPU = 2**32, 2**28


class Limits(NamedTuple):
    """Limits per second: multiplications and additions in matrix products, and bytes read from or written to memory."""

    operations: float
    bytes: float


def limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """The limits of a device, each the best of ROUNDS measurements.

    Args:
        dtype: type of the matrices.
    """
    timer = Timer(device, process_time=True)
    width, size = (WIDTH_ON_CPU, BYTES_ON_CPU) if device.type == "cpu" else (WIDTH, BYTES)
    # The numbers are random, since products of equal numbers take a GPU less power and less time.
    matrix, out = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))
    source, target = (torch.ones(size, device=device, dtype=torch.uint8) for _ in range(2))

    def best(work) -> float:
        return min(timer(work) for _ in range(ROUNDS))

    product = best(lambda: torch.mm(matrix, matrix, out=out))
    return Limits(2 * width**3 / product, 2 * size / best(lambda: target.copy_(source)))


def share(row: dict, device_limits: Limits) -> dict[str, float]:
    """The `share` of the device's limit that a row reaches: of matrix products in training, of memory in decoding.

    Empty for rows with neither `operations` nor `weight_bytes` (bytes of the weights that a token is multiplied by).
    """
    if "operations" in row:
        return {"share": row["operations"] / row["seconds"] / device_limits.operations}
    if "weight_bytes" in row:
        return {"share": row["weight_bytes"] / row["seconds"] / device_limits.bytes}
    return {}
