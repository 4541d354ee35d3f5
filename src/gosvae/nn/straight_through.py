"""Straight-through estimator (Bengio et al. 2013): a step without a useful gradient passes the gradient on."""

from __future__ import annotations

from torch import Tensor


def straight_through(z: Tensor, z_hat: Tensor) -> Tensor:
    """Return the values of `z_hat`, bit for bit, with the gradient of `z`; both have the same shape.

    The formula is `z_hat + (z - sg[z])`, because the usual `z + sg[z_hat - z]` rounds: a receiver that looks codes up
    would not get the values that the decoder was trained on.
    """
    return z_hat.detach() + (z - z.detach())
