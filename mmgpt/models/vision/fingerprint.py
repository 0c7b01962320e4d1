"""Fingerprint of an image encoder in a folder of cached features: some pixels and their features.

Weights alone would not identify an image encoder: its layer, norm, activation and heads are settings, some of them in
files beside the weights.
"""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mmgpt.utils.atomic import atomic_write

FILE = "tower.safetensors"  # the name that existing caches have
# Largest norm of a difference, relative to that of the features. Rounding to float16 gives 3e-4, another processor far
# less.
TOLERANCE = 1e-3


def write_fingerprint(vision: nn.Module, pixels: Tensor, folder: str | os.PathLike) -> None:
    """Writes pixels (N, 3, H, W) and their features into a folder."""
    with atomic_write(Path(folder) / FILE) as temporary:
        # The files of save_file can be read by their owner only.
        temporary.write_bytes(save({"pixels": pixels.contiguous(), "features": _features(vision, pixels)}))


def check_fingerprint(vision: nn.Module, folder: str | os.PathLike) -> bool:
    """Compares an image encoder with the fingerprint in a folder.

    Returns:
        Whether the folder has a fingerprint.

    Raises:
        ValueError: the fingerprint is that of another image encoder.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return False
    fingerprint = load_file(path)
    features, expected = _features(vision, fingerprint["pixels"]), fingerprint["features"]
    # Written so that NaN counts as another image encoder.
    if features.shape != expected.shape or not (features - expected).norm() <= TOLERANCE * expected.norm():
        raise ValueError(
            f"the features in {folder} are of another image encoder (weights, settings or dtype) than the model's: "
            "name another feature_cache, or delete it"
        )
    return True


@torch.no_grad()
def _features(vision: nn.Module, pixels: Tensor) -> Tensor:
    """float32 (N, P, D) on the CPU, in evaluation mode."""
    training, parameter = vision.training, next(vision.parameters())
    features = vision.eval()(pixels.to(parameter))
    vision.train(training)
    return features.float().cpu().contiguous()
