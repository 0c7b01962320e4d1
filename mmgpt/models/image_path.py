"""Checks that images reach a language model that is about to be trained or to answer."""

import logging

from mmengine.logging import print_log
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .flamingo import Flamingo
from .gated_lm import gated_layers

CLOSED_GATES = (
    "the gates of all gated blocks are zero: images do not reach this model, and it answers as its language model "
    "does; set flamingo_weights to a file with the resampler and the gated blocks of this base"
)


def check_image_path(model: nn.Module) -> None:
    """Refuse to train a Flamingo, or a LoRAModel around one, that images cannot reach, or whose image path is noise.

    The image path consists of the resampler and the gated blocks, which Flamingo adds to two pretrained models; for a
    new pair of models they are new. They may be loaded, trained in full (alone, or beside LoRA by `train`), or trained
    partly (LoRA in the gated blocks).
    Other models pass. Other random frozen weights only cause a warning: images reach the model through them all the
    same, and a config may ask for a random image encoder.

    Raises:
        ValueError: all gates are zero and frozen, or the whole path is random and frozen.
    """
    flamingo = next((module for module in model.modules() if isinstance(module, Flamingo)), None)
    if flamingo is None:
        return
    blocks = [layer.gated for layer in gated_layers(flamingo)]
    reason = None
    # The gates of the feed-forward do not matter, since it sees no image.
    gates = [getattr(block, "attn_gate", None) for block in blocks]
    if all(gate is not None and not gate.requires_grad and not _value(gate).any() for gate in gates):
        reason = "the gates (attn_gate) of all gated blocks are zero and frozen, so that images never reach the model"
    elif flamingo.weights is None and not _is_trainable(flamingo.perceiver, *blocks):
        reason = (
            "the resampler and the gated blocks were not loaded and are frozen, so that images are noise to the model"
        )
    if reason:
        raise ValueError(
            f"{reason}. Set flamingo_weights (now {flamingo.weights!r}) to a file with the resampler and gated blocks "
            "of this base; or train them, beside LoRA by model.train=['perceiver', 'gated'] as "
            "configs/mmgpt/lora_from_scratch.py does, or alone as configs/mmgpt/align.py does"
        )
    random = []
    if not getattr(flamingo.vision, "pretrained", True) and not _is_trainable(flamingo.vision):
        random.append("image encoder")
    if flamingo.weights is None:
        random += ["resampler"] * (not _is_trainable(flamingo.perceiver))
        random += ["gated blocks"] * any(not weight.requires_grad for block in blocks for weight in block.parameters())
    if random:
        text = f"frozen random weights: {', '.join(random)}. Images pass through them; load weights, or train them"
        print_log(text, "current", logging.WARNING)


def has_closed_gates(model: nn.Module) -> bool:
    """Whether the gates of a Flamingo, or of a wrapper around one, let no image in, nor do those of any adapter."""
    named = (item for layer in gated_layers(model) for item in layer.gated.named_parameters())
    gates = [gate for name, gate in named if name.endswith("attn_gate")]
    return bool(gates) and not any(_value(gate).any() for gate in gates)


def warn_of_closed_gates(model: nn.Module) -> None:
    """Log a warning about a model with closed gates that is about to answer."""
    if has_closed_gates(model):
        print_log(CLOSED_GATES, "current", logging.WARNING)


def _value(gate: nn.Parameter) -> Tensor:
    """A gate's value; where gates are sharded, all processes have to call this."""
    return gate.full_tensor() if isinstance(gate, DTensor) else gate


def _is_trainable(*modules: nn.Module) -> bool:
    """Whether any parameter of the modules is trainable."""
    return any(weight.requires_grad for module in modules for weight in module.parameters())
