"""Whether images reach a language model that is about to be trained, and can teach it anything."""

import logging

from mmengine.logging import print_log
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .flamingo import Flamingo
from .gated_lm import gated_layers


def check_image_path(model: nn.Module) -> None:
    """Refuse to train a Flamingo, or a LoRAModel around one, whose images cannot reach or teach it.

    The image path consists of the resampler and the gated blocks, which Flamingo adds to two pretrained models; for a
    new pair of them they are new. It may be loaded, trained in full, or trained in a part (LoRA in the gated blocks).
    Any other model passes. What keeps random weights beside that is warned of: images reach the model through it all
    the same, and a random image encoder is what its config asks for.

    Raises:
        ValueError: all gates are zero and frozen, or the whole path is random and frozen.
    """
    flamingo = next((module for module in model.modules() if isinstance(module, Flamingo)), None)
    if flamingo is None:
        return
    blocks = [layer.gated for layer in gated_layers(flamingo)]
    reason = None
    # Gates of the feed-forward let nothing of an image in.
    if all(hasattr(block, "attn_gate") and _is_closed(block.attn_gate) for block in blocks):
        reason = "the gates (attn_gate) of all gated blocks are zero and frozen, so that images never reach the model"
    elif flamingo.weights is None and not _trains(flamingo.perceiver, *blocks):
        reason = (
            "the resampler and the gated blocks were not loaded and are frozen, so that images are noise to the model"
        )
    if reason:
        raise ValueError(
            f"{reason}. Set flamingo_weights (now {flamingo.weights!r}) to a file with the resampler and gated blocks "
            "of this base, or train them first as configs/mmgpt/full_joint.py does and make such a file of its "
            "checkpoint with tools/model_converters/weights.py"
        )
    random = []
    if not getattr(flamingo.vision, "pretrained", True) and not _trains(flamingo.vision):
        random.append("image encoder")
    if flamingo.weights is None:
        random += ["resampler"] * (not _trains(flamingo.perceiver))
        random += ["gated blocks"] * any(not weight.requires_grad for block in blocks for weight in block.parameters())
    if random:
        text = (
            f"random weights that are frozen stay in: {', '.join(random)}. Images are seen through them; load weights"
        )
        print_log(f"{text}, or train them", "current", logging.WARNING)


def tell_unseen_images(model: nn.Module) -> None:
    """Warn of a Flamingo, or a LoRAModel around one, that is about to answer, and whose gates let no image through."""
    gates = [getattr(layer.gated, "attn_gate", None) for layer in gated_layers(model)]
    if gates and all(gate is not None and not _value(gate).any() for gate in gates):
        print_log(
            "the gates of all gated blocks are zero: images do not reach this model, and it answers as its language "
            "model does; set flamingo_weights to a file with the resampler and the gated blocks of this base",
            "current",
            logging.WARNING,
        )


def _is_closed(gate: nn.Parameter) -> bool:
    """Whether a gate is zero for good."""
    return not gate.requires_grad and not _value(gate).any()


def _value(gate: nn.Parameter) -> Tensor:
    """A gate's value. Where gates are sharded, all processes ask."""
    return gate.full_tensor() if isinstance(gate, DTensor) else gate


def _trains(*modules: nn.Module) -> bool:
    return any(weight.requires_grad for module in modules for weight in module.parameters())
