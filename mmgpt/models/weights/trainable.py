"""The tensors of a model that training changes, as checkpoints hold them: their names and values, and loading them."""

import os

from torch import Tensor, nn

from .loading import check_fit, check_tuning, load_state
from .names import our_names
from .reader import read_weights, state_and_tuning


def trainable_names(model: nn.Module) -> set[str]:
    """Names in ``model.state_dict()`` that training changes.

    These are the parameters that require gradients, the persistent buffers of the modules that own such a parameter
    (running statistics), and all tensors that LoRA added, of which some variants train only a few (MiCA, VeLoRA).
    """
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    # No state dict is made for the names, since 4-bit weights pack their quantization state for it each time.
    lora = {name for name, _ in model.named_parameters(remove_duplicate=False) if ".lora_" in name}
    for prefix, module in model.named_modules():
        buffers = {name for name, _ in module.named_buffers(recurse=False)} - module._non_persistent_buffers_set
        buffers = {f"{prefix}.{name}" if prefix else name for name in buffers}
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            names |= buffers
        lora |= {name for name in buffers if ".lora_" in name}
    return names | lora if names & lora else names


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """The part of ``model.state_dict()`` that a checkpoint holds, see `trainable_names`."""
    names = trainable_names(model)
    return {name: value for name, value in model.state_dict().items() if name in names}


def checked_state(model: nn.Module, checkpoint: dict, source: str) -> dict[str, Tensor]:
    """State dict of a checkpoint under the model's names, which must be exactly those of `trainable_names`.

    Args:
        model: built from the config that the checkpoint belongs to.
        checkpoint: content of a checkpoint of tools/train.py, or of MultiModal-GPT's LoRA files in any of their
            layouts.
        source: name of the file, for messages.

    Raises:
        ValueError: the checkpoint belongs to another config; names the tensors, or the setting of LoRA.
    """
    state, tuning = state_and_tuning(checkpoint, source)
    check_tuning(model, tuning, source)
    state, names = our_names(model, state, source), trainable_names(model)
    check_fit(model, state, required=names, allowed=names, source=source)
    return state


def load_trainable(model: nn.Module, path: str | os.PathLike) -> None:
    """Load a checkpoint into ``model`` (built from the same config), and log what was loaded.

    Raises:
        FileNotFoundError, ValueError: see `read_weights` and `checked_state`.
    """
    load_state(model, checked_state(model, read_weights(path), str(path)), str(path))
