"""Configuration of a training: stages in order, each with its terms, schedule and batches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer

from gosvae.config import Config
from gosvae.precision import Precision


class BatchConfig(Config):
    """How batches are drawn: `batch_size` images for each device, cropped and flipped at random."""

    batch_size: int = Field(default=4, ge=1)
    crop_height: int | None = Field(default=None, ge=16)
    crop_width: int | None = Field(default=None, ge=16)
    flip: bool = True
    brightness: float = Field(default=0.0, ge=0, lt=1)
    """Brightness and contrast are multiplied by a factor in [1 - brightness, 1 + brightness]."""
    scale: float = Field(default=0.0, ge=0, lt=1)
    """Size is multiplied by a factor in [1 - scale, 1 + scale] before the crop."""


class AdversaryConfig(Config):
    """The second player of a stage: a discriminator that is trained to tell reconstructions from originals.

    Attributes:
        start_step: step of the stage at which it joins; before it neither player sees the other.
        weight: of the generator's loss, on top of the adaptive weight (Esser et al. 2021).
        learning_rate: of the discriminator's Adam; it follows the schedule of the stage's own rate.
        width, layers, normalisation: of `PatchDiscriminator`.
    """

    start_step: int = Field(default=0, ge=0)
    weight: float = Field(default=0.8, ge=0)
    learning_rate: float = Field(default=2e-4, gt=0)
    width: int = Field(default=64, ge=1)
    layers: int = Field(default=3, ge=1, le=6)
    normalisation: Literal["batch", "none"] = "batch"


class StageConfig(Config):
    """One stage of a training.

    Attributes:
        name: its name in logs and folders.
        weights: loss terms by name and their weights; terms that are not named are not computed.
        ramp_steps: the imitation terms (jsd, kld, ce) grow from zero to their weight over so many steps.
        steps: optimiser steps.
        learning_rate: of AdamW, reached after `warmup_steps`, then cosine decay to `final_rate` times itself.
        clip_norm: largest norm of the gradient.
        ema_decay: of the moving average of the weights, which is what is kept; 0 keeps the last weights.
        adversary: a discriminator to play against, or None.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    weights: dict[str, float] = Field(min_length=1)
    steps: int = Field(ge=1)
    ramp_steps: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    final_rate: float = Field(default=0.01, ge=0, le=1)
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    batches: BatchConfig = BatchConfig()
    adversary: AdversaryConfig | None = None

    @model_serializer(mode="wrap")
    def _without_an_adversary_that_is_not_there(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs that began before there were adversaries stay the same runs."""
        tree: dict[str, Any] = write(self)
        return {key: value for key, value in tree.items() if key != "adversary" or value is not None}


def _different_names(stages: tuple[StageConfig, ...]) -> tuple[StageConfig, ...]:
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ValueError(f"stages need different names, got {', '.join(names)}")
    return stages


Stages = Annotated[tuple[StageConfig, ...], Field(min_length=1), AfterValidator(_different_names)]
"""Stages in their order; each has a name, and so a folder, of its own."""


class RunConfig(Config):
    """How a recipe is run: seed, devices, precision of the arithmetic, how often to log and to save."""

    seed: int = Field(default=0, ge=0)
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(default=1, ge=1)
    precision: Precision = "auto"
    workers: int = Field(default=0, ge=0)
    cache_mib: int = Field(default=1024, ge=0)
    """Memory for decoded images."""
    log_steps: int = Field(default=10, ge=1)
    save_minutes: float = Field(default=3.0, gt=0)
    histogram_pixels: int = Field(default=60_000_000, ge=1)
    """Of the training images, evenly spaced, that the static histogram is counted on at the end of a stage."""
    tensorboard: bool = True
