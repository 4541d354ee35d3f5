"""Device and precision with which networks compute: float32, or bfloat16 on devices that have it."""

from __future__ import annotations

from typing import Literal

import torch

from gosvae.errors import ConfigError

Precision = Literal["auto", "32", "bf16"]
"""Precision of networks; `auto` is bf16 on accelerators and on processors that compute in it, and 32 bits on others.

Other processors emulate bf16, which is many times slower.
"""


def has_bf16(device_type: str) -> bool:
    """Return whether devices of a type compute in bfloat16 instead of emulating it; False if it is not known."""
    # PyTorch has no public function for this. An emulated matrix product in bf16 takes ten times as long as in float32.
    checks = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
    return device_type != "cpu" or any(check() for check in checks if check is not None)


def autocast(device_type: str, precision: Precision) -> torch.autocast:
    """Return the context in which a network computes on devices of a type."""
    mixed = precision == "bf16" or (precision == "auto" and has_bf16(device_type))
    return torch.autocast(device_type, torch.bfloat16, enabled=mixed)


def usable_device(device: str | torch.device) -> torch.device:
    """Return a device after a first use of it.

    Raises:
        ConfigError: the device does not exist or cannot be used.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:  # PyTorch raises each of them
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"device {str(device)!r} cannot be used here ({reason}): take cpu", argument="device"
        ) from None
    return found
