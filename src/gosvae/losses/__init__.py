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
from gosvae.losses.perceptual import (
    PERCEPTUAL_NAMES,
    PerceptualLoss,
    available_perceptual,
    default_perceptual,
    load_perceptual,
)

__all__ = [
    "PERCEPTUAL_NAMES",
    "ImitationKind",
    "PerceptualLoss",
    "available_perceptual",
    "cross_entropy",
    "default_perceptual",
    "imitation_loss",
    "jensen_shannon",
    "kullback_leibler",
    "load_perceptual",
    "mean_squared_error",
]
