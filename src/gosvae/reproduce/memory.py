"""Peak memory of a piece of work: of the GPU's allocator on CUDA, of the whole process elsewhere."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEMORY = Path("/proc/meminfo")


class MemoryMeter:
    """Meter of the peak memory since its last reset, in bytes.

    Args:
        device: device of the work. On the CPU it measures the peak resident set of the process, which on systems other
            than Linux cannot be reset.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def reset(self) -> None:
        """Give unused memory back and start to measure."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
        elif sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
            if trim is not None:
                trim(0)
            try:
                _CLEAR.write_text("5")  # sets VmHWM to the present size
            except OSError:  # a sandbox without /proc
                return

    def peak_bytes(self) -> int:
        """Return the largest number of bytes since the reset."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_reserved(self._device))
        found = _kib_of(_STATUS, "VmHWM")
        if found is not None:
            return 1024 * found
        import resource  # imported here: not every system has it

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def limit_bytes(self) -> int:
        """Return the number of bytes that the peak may reach on this machine, with what other programs use now."""
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            return int(free + torch.cuda.memory_reserved(self._device))
        available, own = _kib_of(_MEMORY, "MemAvailable"), _kib_of(_STATUS, "VmRSS")
        if available is not None and own is not None:
            return 1024 * (available + own)
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _kib_of(path: Path, key: str) -> int | None:
    """Return a number of KiB in a file of `/proc`; None if there is none."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)
