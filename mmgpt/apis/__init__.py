"""The public Python interface: a chat with a tuned model, an inferencer for lists of questions, and model building."""

from importlib import import_module

from mmgpt.compat.python_names import warn_renamed
from mmgpt.utils.imports import without_collection
from mmgpt.utils.lazy_names import lazy_names

MODULES = {
    "Chat": "chat",
    "Conversation": "conversation",
    "MMGPTInferencer": "inferencer",
    "build_model": "build",
    "read_image": "inputs",
}
# The names that bring the models' libraries.
WITH_MODELS = ("Chat", "MMGPTInferencer", "build_model")
RENAMED = {"read_picture": "read_image"}
__all__ = list(MODULES)
_get = lazy_names(__name__, MODULES)


def __getattr__(name: str):
    """Imports a public name on first use (PEP 562), so that --help and a wrong path do not wait seconds for torch."""
    if name in RENAMED:
        warn_renamed(f"mmgpt.apis.{name}", RENAMED[name])
        name = RENAMED[name]
    if name in WITH_MODELS:
        with without_collection():
            import_module("mmgpt.utils.lean_generation")
    return _get(name)
