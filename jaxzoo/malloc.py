"""Memory of a process that computes on the CPU."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
MOST = 2**31 - 1


def keep_freed_memory() -> None:
    """Has glibc keep large blocks that are freed, for the next step to use; call it before threads start.

    Otherwise blocks of more than 32 MB, such as the activations of every step, go back to Linux and come anew, page by
    page: a sixth to a third of a step's time (docs/benchmarks.md). The process keeps the most that it ever needed.
    Does nothing under another C library.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MOST)
        libc.mallopt(M_TRIM_THRESHOLD, MOST)
        libc.mallopt(M_ARENA_MAX, 1)  # the heaps of other threads end at 64 MB, and larger blocks are not kept
