"""A Gaussian over pictures. Axis legend: B images, H and W pixels, T taps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_RADIUS = 3
"""Number of taps on either side."""


def gaussian_blur(x_B3HW: Tensor, deviation: float) -> Tensor:
    """Return the pictures under a Gaussian of that standard deviation, above 0 and at most 2 pixels; edges mirror."""
    taps_T = torch.exp(-(torch.arange(-_RADIUS, _RADIUS + 1).to(x_B3HW) ** 2) / (2.0 * deviation**2))
    kernel_31T1 = (taps_T / taps_T.sum()).view(1, 1, -1, 1).expand(3, 1, -1, 1)
    padded = F.pad(x_B3HW, (_RADIUS, _RADIUS, _RADIUS, _RADIUS), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel_31T1, groups=3), kernel_31T1.transpose(2, 3), groups=3)
