"""Importing the libraries of the models, which define hundreds of thousands of objects."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Context manager in which Python's garbage collector does not run.

    While modules are imported, it looks again and again through what they define, and finds nothing to free: a sixth of
    the time that it takes to import what a chat needs.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Context manager for a tool's imports of what builds and runs models.

    What is alive at its end, the modules, stays as long as the process: later collections do not look through it.
    """
    with without_collection():
        import mmgpt.utils.lean_generation  # noqa: F401 before whatever imports transformers

        yield
    gc.freeze()
