"""Settings of the memory allocator, in a process of its own: they hold for the whole process."""

import os
import platform
import subprocess
import sys

import pytest

from mmgpt.utils.malloc import VARIABLES

FAULTS = """
import resource, sys
from mmgpt.utils.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    b"x" * (64 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Prints the page faults of a block of 64 MiB that is made and freed fifty times."""


def printed(mode, **environment):
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    run = [sys.executable, "-c", FAULTS, mode]
    return subprocess.run(run, env=clean | environment, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of the GNU C library")
class TestKeepFreedMemory:
    def test_freed_memory_is_used_again(self):
        kept, faults = printed("keep")
        [by_default] = printed("leave")
        assert kept == "True"
        assert int(faults) < int(by_default) / 10

    def test_settings_in_the_environment_are_left_alone(self):
        kept, faults = printed("keep", MALLOC_MMAP_THRESHOLD_="65536")
        [by_default] = printed("leave")
        assert kept == "False"
        assert int(faults) > int(by_default) / 2
