"""Unweighted loss terms: divergences of the expert's class distributions, distortions (pixels, features), adversary."""

from __future__ import annotations

from gosvae.losses.adversarial import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator_loss,
    hinge_generator_loss,
)
from gosvae.losses.divergence import (
    ImitationKind,
    cross_entropy,
    imitation_loss,
    jensen_shannon,
    kullback_leibler,
    mean_absolute_error,
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
    "PatchDiscriminator",
    "PerceptualLoss",
    "adaptive_weight",
    "available_perceptual",
    "cross_entropy",
    "default_perceptual",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "imitation_loss",
    "jensen_shannon",
    "kullback_leibler",
    "load_perceptual",
    "mean_absolute_error",
    "mean_squared_error",
]
