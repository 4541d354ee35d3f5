"""Units of rate and quality. One KiB is 1024 bytes; `bpp` is bits per pixel of the original image."""

from __future__ import annotations

import math

from gosvae.errors import ConfigError

BYTES_PER_KIB = 1024


def kib(n_bytes: float) -> float:
    """Return a number of bytes in KiB (1024 bytes)."""
    return n_bytes / BYTES_PER_KIB


def bytes_from_kib(n_kib: float) -> int:
    """Return a number of KiB in whole bytes, rounded down, so that a budget is never exceeded.

    Raises:
        ConfigError: the number is not finite.
    """
    if not math.isfinite(n_kib):
        raise ConfigError(f"a size of {n_kib} KiB: expected a finite number", argument="kib")
    return math.floor(n_kib * BYTES_PER_KIB)


def rate_bpp(n_bytes: float, height: int, width: int) -> float:
    """Return the bits per pixel of an image of `height` x `width` pixels that takes `n_bytes` bytes."""
    return 8.0 * n_bytes / (height * width)


def psnr_db(mse: float) -> float:
    """Return the peak signal-to-noise ratio in dB for a mean squared error on the [0, 1] scale; `inf` for 0."""
    return math.inf if mse == 0 else -10.0 * math.log10(mse)
