"""What an image encoder is known by: some pixels, and the features that it gives for them.

Weights alone would not tell one from another: which layer is read, its norm, activation and heads are settings, some of
them in files beside the weights.
"""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mmgpt.utils.atomic import atomic_write

PROBE = "tower.safetensors"
# The length of the difference by that of the features. Rounding to float16 makes 3e-4, another processor far less.
NEAR = 1e-3


def write_probe(vision: nn.Module, pixels: Tensor, folder: str | os.PathLike) -> None:
    """Keeps what an image encoder makes of pixels (N, 3, H, W)."""
    with atomic_write(Path(folder) / PROBE) as part:
        # Not save_file, whose files nobody but their owner can read.
        part.write_bytes(save({"pixels": pixels.contiguous(), "features": _features(vision, pixels)}))


def is_known(vision: nn.Module, folder: str | os.PathLike) -> bool:
    """Whether a folder holds a probe, which is then of this very image encoder.

    Raises:
        ValueError: it is of another one.
    """
    path = Path(folder) / PROBE
    if not path.is_file():
        return False
    probe = load_file(path)
    features = _features(vision, probe["pixels"])
    same = features.shape == probe["features"].shape
    if not same or not (features - probe["features"]).norm() <= NEAR * probe["features"].norm():
        raise ValueError(
            f"the features in {folder} are of another image encoder (weights or settings) than the model's: name "
            "another feature_cache, or delete it"
        )
    return True


@torch.no_grad()
def _features(vision: nn.Module, pixels: Tensor) -> Tensor:
    """float32 (N, P, D) on the CPU, in evaluation mode."""
    training, parameter = vision.training, next(vision.parameters())
    features = vision.eval()(pixels.to(parameter))
    vision.train(training)
    return features.float().cpu().contiguous()
