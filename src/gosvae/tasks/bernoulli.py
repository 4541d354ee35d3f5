"""Divergences of probabilities that belong to two outcomes each, for detectors and binary maps."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 1e-6


def bernoulli_divergence(p: Tensor, p_hat: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of two Bernoulli distributions, value by value, in [0, ln 2] nats.

    Probabilities are kept `1e-6` away from 0 and 1, where the logarithm and its gradient are finite.
    """
    p, p_hat = p.float().clamp(_LEAST, 1 - _LEAST), p_hat.float().clamp(_LEAST, 1 - _LEAST)
    mean = (p + p_hat) / 2
    yes = p * torch.log(p / mean) + p_hat * torch.log(p_hat / mean)
    no = (1 - p) * torch.log((1 - p) / (1 - mean)) + (1 - p_hat) * torch.log((1 - p_hat) / (1 - mean))
    return ((yes + no) / 2).clamp_min(0.0)
