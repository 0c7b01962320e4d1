"""The name of the argument in which a language model takes its KV cache.

It is `cache` since transformers 5.24 and was `past_key_values` before. Models from elsewhere may keep the old name for
longer, or take the new one sooner, than the transformers that calls them.
"""

import inspect
from collections.abc import Callable

from transformers import GenerationMixin

OLD, NEW = "past_key_values", "cache"


def cache_argument(function: Callable) -> str:
    """`cache` or `past_key_values`, whichever a forward or similar function names; transformers' own if it names none."""
    parameters = inspect.signature(function).parameters
    return next((name for name in (NEW, OLD) if name in parameters), CACHE)


# The name that the installed transformers uses in `generate` and all that it calls.
CACHE = NEW if NEW in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters else OLD
