"""A cheap test at the encoder: does a picture look like those that a variable-rate codec was trained for?

The channels of the latent have other means for other kinds of scenes. The test compares them with the statistics of the
training images, without the decoder and without an expert.

Axis legend: D latent channels, h and w latent positions.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gosvae.codecs.allocation import REFERENCE_PIXELS
from gosvae.codecs.checkpoint import read_json
from gosvae.codecs.variable import VariableRateCodec
from gosvae.config import Config, parse
from gosvae.files import json_bytes, write_atomically
from gosvae.tensors import ImageArray

SCENE_FILE = "scene.json"
"""Name of the file of the statistics in the folder of a codec."""
_LEVEL = 128
_FLOOR = 2e-3
"""Variance that is added to that of every channel."""


class SceneStatistics(Config):
    """Means and variances, over images, of the mean of every channel at level 128; 0 in channels without any.

    Attributes:
        means, variances: one for each channel.
        likely, possible: greatest score of pictures that certainly and perhaps look like the training images.
    """

    means: tuple[float, ...]
    variances: tuple[float, ...]
    likely: float
    possible: float

    def score(self, means_D: Tensor) -> float:
        """Return the mean squared deviation of a picture's channels, in units of the variances: about 1 or less."""
        means, variances = torch.tensor(self.means), torch.tensor(self.variances)
        used = variances > 0
        return float(((means_D - means) ** 2 / (variances + _FLOOR))[used].mean())


def channel_means(task: VariableRateCodec, latent_1Dhw: Tensor) -> Tensor:
    """Return the mean (D,) of every channel of a latent at level 128; 0 in channels that are not coded there."""
    with torch.inference_mode():
        level_1 = torch.tensor([_LEVEL], device=task.device)
        scaled_1Dhw = task.model.scaled(latent_1Dhw.to(task.device), level_1)
        return scaled_1Dhw[0].mean(dim=(1, 2)).cpu()


def reduced(image_uint8_HW3: ImageArray) -> ImageArray:
    """Return a picture of about `REFERENCE_PIXELS` if it has more than four times as many, or else as it is."""
    height, width = image_uint8_HW3.shape[:2]
    factor = math.sqrt(REFERENCE_PIXELS / (height * width))
    if factor >= 0.5:
        return image_uint8_HW3
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(image_uint8_HW3)).resize(size, Image.Resampling.BICUBIC))


def fitted(means_ND: Tensor, weights_N: Tensor, *, likely: float, possible: float) -> SceneStatistics:
    """Return the statistics of images, given the channel means and a weight of each."""
    share_N1 = (weights_N / weights_N.sum())[:, None]
    means_D = (share_N1 * means_ND).sum(dim=0)
    variances_D = (share_N1 * (means_ND - means_D) ** 2).sum(dim=0)
    return SceneStatistics(
        means=tuple(round(value, 4) for value in means_D.tolist()),
        variances=tuple(round(value, 5) for value in variances_D.tolist()),
        likely=likely,
        possible=possible,
    )


def save_scene(folder: Path, statistics: SceneStatistics) -> None:
    """Write the statistics into the folder of a codec.

    Raises:
        WriteError: there is no space or no permission.
    """
    write_atomically(folder / SCENE_FILE, json_bytes(statistics.model_dump(mode="json")))


def load_scene(folder: Path) -> SceneStatistics | None:
    """Read the statistics in the folder of a codec; None if it has none.

    Raises:
        CheckpointError, ConfigError: the file is damaged.
    """
    path = folder / SCENE_FILE
    return parse(SceneStatistics, read_json(path), source=str(path)) if path.is_file() else None
