"""Names that differ between the versions of transformers that this project allows, looked up where they are defined.

5.23 renamed gradient checkpointing to activation checkpointing; 5.24 renamed the KV cache from `past_key_values` to
`cache`. Models from elsewhere may keep an old name for longer, or take a new one sooner, than the transformers that
calls them.
"""

import inspect
from collections.abc import Callable

from transformers import GenerationMixin, PreTrainedModel

OLD_CACHE, NEW_CACHE = "past_key_values", "cache"
_PARAMETERS = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
# The name of the KV cache in transformers' `generate` and in all that it calls.
CACHE = NEW_CACHE if NEW_CACHE in _PARAMETERS else OLD_CACHE


def cache_argument(function: Callable) -> str:
    """The name under which a forward, or a function like it, takes its KV cache; that of `CACHE` if it names none."""
    parameters = inspect.signature(function).parameters
    return next((name for name in (NEW_CACHE, OLD_CACHE) if name in parameters), CACHE)


def set_activation_checkpointing(model: PreTrainedModel, on: bool) -> None:
    """Switch activation checkpointing of a model on or off, without reentrant checkpoints.

    Those silently train nothing behind frozen inputs, unless the embedding has gradients.
    """
    kind = "activation" if hasattr(PreTrainedModel, "activation_checkpointing_enable") else "gradient"
    if on:
        getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{kind}_checkpointing_disable")()
