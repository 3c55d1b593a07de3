"""Has the C library give large pieces of memory back as soon as they are free. Never fails."""

from __future__ import annotations

import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the names of glibc's malloc.h have an M_ before them
_LARGE = 256 << 10  # bytes: from here on a piece is asked of the system by itself
_KEPT = 1 << 20  # bytes of free memory at the end of the heap


@cache
def give_back_large_pieces() -> bool:
    """Lets this process ask the system for every large piece of memory by itself; returns whether the C library does.

    Else glibc takes the size of the first large piece that is freed for usual. From then on it cuts such pieces from
    its heap, where what is free between two that are used is lost. With glibc alone: other C libraries give large
    pieces back anyway, or cannot be told. Costs nothing that a sync of many small records shows.
    """
    if sys.platform != "linux":
        return False
    try:
        import ctypes  # not every Python has it

        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - others have a mallopt that means something else, or nothing
        options = ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _KEPT))
        return all(library.mallopt(option, size) == 1 for option, size in options)
    except (ImportError, OSError, AttributeError):
        return False
