"""Configuration of a training: its stages, each with loss terms, schedule and batches, and options of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer

from gosvae.config import Config
from gosvae.precision import Precision


class BatchConfig(Config):
    """Batches of a stage.

    Attributes:
        batch_size: number of images in a batch, for each device.
        crop_height, crop_width: size in pixels of the random crops; None takes whole images.
        flip: whether half of the crops are mirrored.
        brightness: brightness and contrast are each multiplied by a factor in [1 - brightness, 1 + brightness].
        scale: the size is multiplied by a factor in [1 - scale, 1 + scale] before the crop.
        colour, blur, noise: see `gosvae.datasets.camera.CameraChange`.
    """

    batch_size: int = Field(default=4, ge=1)
    crop_height: int | None = Field(default=None, ge=16)
    crop_width: int | None = Field(default=None, ge=16)
    flip: bool = True
    brightness: float = Field(default=0.0, ge=0, lt=1)
    scale: float = Field(default=0.0, ge=0, lt=1)
    colour: float = Field(default=0.0, ge=0, lt=1)
    blur: float = Field(default=0.0, ge=0, le=2)
    noise: float = Field(default=0.0, ge=0, lt=1)

    @property
    def repeats_images(self) -> bool:
        """Whether each image, as it is or mirrored, comes again in every epoch."""
        changes = (self.brightness, self.scale, self.colour, self.blur, self.noise)
        return self.crop_height is None and not any(changes)

    @model_serializer(mode="wrap")
    def _without_absent_camera(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave changes of the camera out where there are none: earlier runs keep their key (see `run_key`)."""
        tree: dict[str, Any] = write(self)
        return {key: value for key, value in tree.items() if key not in ("colour", "blur", "noise") or value}


class AdversaryConfig(Config):
    """Adversary of a stage: a discriminator that is trained to tell reconstructions from originals.

    Attributes:
        start_step: step of the stage at which the adversary joins; before it, the stage is as without one.
        weight: factor of the generator's loss, on top of the adaptive weight (Esser et al. 2021).
        learning_rate: learning rate of the discriminator's Adam; it follows the schedule of the stage.
        width, layers, normalisation: see `PatchDiscriminator`.
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
        name: name of the stage in logs and folders.
        weights: weights of the loss terms by name; terms without a weight are not computed.
        steps: number of optimiser steps.
        ramp_steps: number of steps over which the imitation terms (jsd, kld, ce, features) grow from 0 to their weight.
        learning_rate: learning rate of AdamW after the warm-up; from there it decays with a cosine.
        final_rate: last learning rate, as a share of `learning_rate`.
        warmup_steps: number of steps over which the learning rate grows linearly.
        weight_decay: weight decay of AdamW.
        clip_norm: largest norm of the gradient.
        ema_decay: decay of the moving average of the weights, which is the result; 0 keeps the last weights.
        batches: size and augmentation of batches.
        adversary: discriminator to train against, or None.
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
    def _without_absent_adversary(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `adversary: None` out, so that runs from before adversaries existed keep their key (see `run_key`)."""
        tree: dict[str, Any] = write(self)
        return {key: value for key, value in tree.items() if key != "adversary" or value is not None}


def _different_names(stages: tuple[StageConfig, ...]) -> tuple[StageConfig, ...]:
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ValueError(f"stages need different names, got {', '.join(names)}")
    return stages


Stages = Annotated[tuple[StageConfig, ...], Field(min_length=1), AfterValidator(_different_names)]
"""Stages in order, at least one; their names differ, because each names a folder."""


class RunConfig(Config):
    """Options of a run: all that is not part of the recipe.

    Attributes:
        seed: seed of initial weights, order of the images and augmentation.
        accelerator: kind of device to train on; `auto` takes a GPU where there is one.
        devices: number of devices.
        precision: precision of the networks; `auto` takes bfloat16 where the device computes in it.
        workers: number of processes that decode images; 0 decodes them in the training process.
        cache_mib: memory in MiB for decoded images.
        log_steps: number of steps between two lines of the log.
        save_minutes: minutes between two saved states.
        histogram_pixels: number of pixels of evenly spaced training images on which the static histogram is counted.
        tensorboard: whether to write TensorBoard files beside the log.
        micro_batch: number of images that a frozen network takes at once (see `gosvae.training.judging`); `auto` takes
            as many as fit into a quarter of a GPU's memory, or into 2 GiB on a CPU.
        expert_cache: folder in which what experts see on originals is kept (see `gosvae.training.originals`); None
            keeps nothing. Stages with random crops or other changes than mirroring do not use it.
        expert_cache_gib: largest size of that folder, in GiB.
        changed_data: whether a run may continue although its images are others than those it was started with.
    """

    seed: int = Field(default=0, ge=0)
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(default=1, ge=1)
    precision: Precision = "auto"
    workers: int = Field(default=0, ge=0)
    cache_mib: int = Field(default=1024, ge=0)
    log_steps: int = Field(default=10, ge=1)
    save_minutes: float = Field(default=3.0, gt=0)
    histogram_pixels: int = Field(default=60_000_000, ge=1)
    tensorboard: bool = True
    # A path of this machine, on which no result depends: it is left out where the run is described.
    expert_cache: Path | None = Field(default=None, exclude=True)
    expert_cache_gib: float = Field(default=40.0, gt=0)
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    changed_data: bool = False
