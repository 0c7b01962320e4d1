"""What the demos, the command line and the server share: a chat with a tuned model."""

from importlib import import_module

PLACES = {
    "Chat": "chat",
    "Conversation": "conversation",
    "MMGPTInferencer": "inferencer",
    "build_model": "build",
    "read_picture": "pictures",
}
__all__ = list(PLACES)


def __getattr__(name: str):
    """Imports what is asked for at that moment (PEP 562): a front's --help comes without torch, which takes seconds."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
