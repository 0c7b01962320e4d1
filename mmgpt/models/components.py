"""Components of a Flamingo: each is a registered module, so that a config can name another one."""

import inspect
from collections.abc import Mapping

from torch import nn

from mmgpt.registry import MODELS

from .dtypes import float_dtype

# The types of components whose config names none.
DEFAULTS = {"perceiver": "PerceiverResampler", "language": "GatedCausalLM", "gated": "GatedCrossAttentionBlock"}
# What a component is called with, and the attributes that other code asks it for (see Flamingo).
INPUTS = {
    "vision": ("pixels",),
    "perceiver": ("features", "positions"),
    "gated": ("hidden_states", "media"),
}
ATTRIBUTES = {
    "vision": ("width",),
    "gated": ("keys_values",),
    "language": (
        "model",
        "image_token_id",
        "gated_layers",
        "ends",
        "media",
        "hidden_states",
        "image_keys_values",
        "generate",
    ),
}


def build_encoder(config: Mapping) -> nn.Module:
    """The image encoder that the `vision` of a Flamingo describes, its weights in the `dtype` that is named there.

    Raises:
        ValueError: see `float_dtype` and `build_component`.
    """
    config = dict(config)
    name = config.pop("dtype", None)
    dtype = name and float_dtype(name, "vision.dtype")
    encoder = build_component("vision", config)
    return encoder.to(dtype) if dtype else encoder


def build_component(name: str, config: Mapping, **derived: object) -> nn.Module:
    """The component that a config describes.

    Args:
        name: 'vision', 'perceiver', 'gated' or 'language'.
        config: `type` and arguments of a registered module.
        derived: arguments that follow from other components.

    Raises:
        ValueError: the config sets a derived argument or lacks the type, or the module lacks what a Flamingo needs of
            it.
    """
    for argument in config:
        if argument in derived:
            raise ValueError(f"{name}.{argument} follows from the other components: leave it out")
    config = {**({"type": DEFAULTS[name]} if name in DEFAULTS else {}), **config}
    if "type" not in config:
        raise ValueError(f"{name} has no type, the class of the component (got {', '.join(config) or 'nothing'})")
    module = MODELS.build({**config, **derived})
    kind = type(module).__name__
    if not isinstance(module, nn.Module):
        raise ValueError(f"{name}: {kind} is not an nn.Module, as each component of a Flamingo has to be")
    missing = [attribute for attribute in ATTRIBUTES.get(name, ()) if not hasattr(module, attribute)]
    if missing:
        raise ValueError(f"{name}: {kind} lacks {', '.join(missing)}, which a Flamingo needs (see its docstring)")
    try:
        if name in INPUTS:
            inspect.signature(module.forward).bind(*INPUTS[name])
    except TypeError as error:
        inputs = ", ".join(INPUTS[name])
        raise ValueError(f"{name}: the forward of {kind} does not take ({inputs}), as a Flamingo calls it") from error
    return module
