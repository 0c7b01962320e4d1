"""Functions that all image encoders share."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def encode_images(vision: nn.Module, images: Tensor, takes_features: bool, tile_ids: Tensor | None = None) -> Tensor:
    """Patch features (n, F, P, D) of images (n, 3, H, W), of frames (n, F, 3, H, W) or of cached features (n, P, D).

    Args:
        vision: an image encoder; no gradients are kept where all of it is frozen.
        takes_features: whether cached features are verified to be those of this image encoder.
        tile_ids: (n, F), not negative for the frames that exist; the others are not encoded, and their features are
            zero. Cached features are (n, F, P, D) then. None: there are no others.

    Raises:
        ValueError: the images are cached features that are not verified, or the image encoder is trainable (with
            LoRA).
    """
    if tile_ids is not None:
        real = (tile_ids >= 0).nonzero(as_tuple=True)
        features = encode_images(vision, images[real], takes_features)[:, 0]
        return features.new_zeros(*tile_ids.shape, *features.shape[1:]).index_put(real, features)
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


@torch.no_grad()
def probe_feature_map(encoder: nn.Module, network: nn.Module, name: str) -> torch.Size:
    """The size (1, D, rows, columns) of an image encoder's `feature_map` of an image of its `image_size`.

    Args:
        encoder: with `layer` and `final_norm` as its arguments.
        network: the library's own network in it.
        name: of the encoder, for messages.

    Raises:
        ValueError: the encoder has no such feature map with its settings, or its last norm does not act on it.
    """
    training, kind = encoder.training, type(encoder).__name__
    pixels = torch.zeros(1, 3, *encoder.image_size)
    try:
        with _count_calls(encoder.eval()) as calls:
            size = encoder.feature_map(pixels).shape
        if encoder.final_norm:
            encoder.final_norm = False
            with _count_calls(encoder) as calls_without_norm:
                encoder.feature_map(pixels)
            encoder.final_norm = True
    except Exception as error:  # each architecture raises its own kind of error for settings that it does not take
        settings = f"layer={encoder.layer} and final_norm={encoder.final_norm}"
        raise ValueError(f"{kind}: {name} gives no patch features with {settings}: {error}") from error
    finally:
        encoder.train(training)
    if encoder.final_norm and len(calls) == len(calls_without_norm):
        raise ValueError(
            f"{kind}: final_norm=True has no effect on {name} ({type(network).__name__}), whose library applies no "
            "last norm to the patches; leave it out"
        )
    return size


@contextmanager
def _count_calls(module: nn.Module) -> Iterator[list[nn.Module]]:
    """Context manager that returns a list, to which each module with parameters is appended at each of its calls."""
    calls: list[nn.Module] = []
    layers = [layer for layer in module.modules() if any(True for _ in layer.parameters(recurse=False))]
    handles = [layer.register_forward_hook(lambda layer, *_: calls.append(layer)) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def check_keys(path: str, missing: Iterable[str], unexpected: Iterable[str] = ()) -> None:
    """Raises a ValueError naming the file or folder and the tensors unless both lists are empty."""
    problems = []
    for names, problem in ((sorted(missing), "lacks"), (sorted(unexpected), "holds, but should not,")):
        if names:
            examples = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
            problems.append(f"it {problem} {len(names)} tensors: {examples}")
    if problems:
        raise ValueError(f"{path} does not fit: {'; '.join(problems)}")
