"""Settings of the C library's memory allocator."""

import ctypes
import os
import platform

# Names from malloc.h of the GNU C library; mallopt(3) describes them.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE = 2**30  # bytes
# The largest value that older versions of the library accept for M_MMAP_THRESHOLD on a machine of 64 bits.
ACCEPTED = 2**25
VARIABLES = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Lets this process keep the memory of freed tensors for the next ones, up to a gibibyte; whether it does.

    By default the GNU C library returns each block of more than 32 MiB to the kernel as soon as it is freed. A tensor
    of that size then costs a page fault for each 4 KiB at every operation, which takes a convolutional image encoder
    three quarters of its time on a CPU. Other C libraries are left alone, and so are settings in the environment
    (VARIABLES).
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in VARIABLES):
        return False
    libc = ctypes.CDLL(None)
    libc.mallopt(M_TRIM_THRESHOLD, LARGE)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, LARGE) or libc.mallopt(M_MMAP_THRESHOLD, ACCEPTED))
