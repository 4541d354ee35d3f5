"""Heap of the process: memory that PyTorch frees at each step of a training is kept for the next step.

By default, glibc maps large tensors into the process and unmaps them again when they are freed, and the kernel clears
every page of the next one.
"""

from __future__ import annotations

import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # parameters of mallopt, from malloc.h
_TOP_PAD_BYTES = 2**28


def keep_freed_memory() -> bool:
    """Let glibc keep all memory that this process frees; for trainings, which soon need it again.

    The process then stays as large as it has ever been. Nothing changes on systems without glibc, if a variable
    `MALLOC_...` or `GLIBC_TUNABLES` sets the allocator, or if `LD_PRELOAD` replaces it.

    Returns:
        Whether glibc keeps the memory.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if sys.platform != "linux" or chosen or "malloc" in os.environ.get("LD_PRELOAD", ""):
        return False
    import ctypes  # imported here: few processes need it

    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    # A threshold of -1 turns trimming off (man mallopt).
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    results = [library.mallopt(name, value) for name, value in settings]
    return results == [1, 1, 1]
