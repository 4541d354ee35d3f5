"""Unweighted loss terms: divergences between the expert's class distributions, and pixel and perceptual distortion."""

from __future__ import annotations

from gosvae.losses.divergence import (
    ImitationKind,
    cross_entropy,
    imitation_loss,
    jensen_shannon,
    kullback_leibler,
    mean_squared_error,
)

__all__ = [
    "ImitationKind",
    "cross_entropy",
    "imitation_loss",
    "jensen_shannon",
    "kullback_leibler",
    "mean_squared_error",
]
