"""Functions that all image encoders share."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def encode_images(vision: nn.Module, images: Tensor, takes_features: bool) -> Tensor:
    """Patch features (n, F, P, D) of images (n, 3, H, W), of frames (n, F, 3, H, W) or of cached features (n, P, D).

    Args:
        vision: an image encoder; no gradients are kept where all of it is frozen.
        takes_features: whether cached features are verified to be those of this image encoder.

    Raises:
        ValueError: the images are cached features that are not verified, or the image encoder is trainable (with
            LoRA).
    """
    trainable = any(weight.requires_grad for weight in vision.parameters())
    if images.ndim == 3:
        if trainable or not takes_features:
            raise ValueError(
                "cached features instead of pixels need a model with feature_cache and a frozen image encoder"
            )
        return images.unsqueeze(1)
    frames = images if images.ndim == 5 else images.unsqueeze(1)
    dtype = next(vision.parameters()).dtype
    with torch.set_grad_enabled(torch.is_grad_enabled() and trainable):
        return vision(frames.flatten(0, 1).to(dtype)).unflatten(0, frames.shape[:2])


def check_keys(path: str, missing: Iterable[str], unexpected: Iterable[str] = ()) -> None:
    """Raises a ValueError naming the file or folder and the tensors unless both lists are empty."""
    for names, problem in ((sorted(missing), "lacks"), (sorted(unexpected), "holds, but should not,")):
        if names:
            examples = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
            raise ValueError(f"{path} does not fit: it {problem} {len(names)} tensors: {examples}")
