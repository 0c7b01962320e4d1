"""Settings of OpenMP, whose threads compute torch's operators on a CPU."""

import os

SPINS = "1000"
VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def limit_spinning() -> None:
    """Lets the threads of GNU's OpenMP, torch's on Linux, sleep soon while they wait for each other.

    By default they spin for milliseconds. Where other programs are busy, a thread that spins takes the core from the
    one that it waits for: a small model's training step on two cores takes forty times as long beside two busy
    processes, and 2.2 times with this limit, which costs up to a twentieth where nothing else runs. The library reads
    its settings when torch is imported; those in the environment (VARIABLES) are left alone.
    """
    if not any(name in os.environ for name in VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = SPINS
