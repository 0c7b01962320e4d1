"""Settings of OpenMP, whose threads compute torch's operators on a CPU."""

import os

SPINS = "10000"
VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def limit_spinning() -> None:
    """Lets the threads of GNU's OpenMP, torch's on Linux, sleep soon while they wait for each other.

    By default they spin for milliseconds. Where other programs are busy, a thread that spins takes the core from the
    one that it waits for (docs/training.md has what it costs). The library reads its settings when torch is imported,
    so that a tool that imports torch before it runs is not helped; those in the environment (VARIABLES) are left alone.
    """
    if not any(name in os.environ for name in VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = SPINS
