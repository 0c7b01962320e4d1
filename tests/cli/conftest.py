"""Fixtures of the engine's tests that tests of messages use, too."""

from tests.engine.conftest import make_runner

__all__ = ["make_runner"]
