"""Parts that end in every way a part can, for the tests of the process that runs them."""

import os
import time

from benchmarks.gpu.parts import Figure, Skipped


def passing(setting):
    """Two figures, one of them the number of the process."""
    yield Figure("process", os.getpid())
    yield Figure("share", 51.0, "%", "50 % at least", True)


def failing(setting):
    """A figure, then an error."""
    yield Figure("before", 1)
    raise ValueError("the losses differ")


def hanging(setting):
    """A figure, then nothing for a minute."""
    yield Figure("before", 2)
    time.sleep(60)


def dying(setting):
    """The end of the process."""
    yield Figure("before", 3)
    os._exit(7)


def skipped(setting):
    """A part that is not possible."""
    yield from ()
    raise Skipped(f"it needs a GPU, not {setting.device}")
