"""Augmentation by what differs from camera to camera: colour, sharpness and noise. Axis legend: H and W pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gosvae.errors import ConfigError
from gosvae.nn.blur import gaussian_blur


@dataclass(frozen=True)
class CameraChange:
    """Largest changes of a picture; 0 changes nothing.

    Attributes:
        colour: c; every channel and the saturation are multiplied by factors from [1 - c, 1 + c].
        blur: largest standard deviation of a Gaussian in pixels, at most 2; half of the pictures are not blurred.
        noise: largest standard deviation of noise on the scale [0, 1]; half of the pictures get none.

    Raises:
        ConfigError: a value outside its range.
    """

    colour: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.colour < 1 and 0 <= self.blur <= 2 and 0 <= self.noise < 1):
            raise ConfigError(
                f"expected colour in [0, 1), blur in [0, 2] and noise in [0, 1), "
                f"got {self.colour}, {self.blur} and {self.noise}"
            )

    @property
    def changes(self) -> bool:
        """Whether pictures are changed."""
        return max(self.colour, self.blur, self.noise) > 0

    def of(self, x_3HW: Tensor, generator: np.random.Generator) -> Tensor:
        """Return a picture in [0, 1] as another camera would have taken it, in [0, 1] too."""
        draws = generator.random(8)
        if self.colour > 0:
            gains = 1.0 + self.colour * (2.0 * draws[:4] - 1.0)
            x_3HW = x_3HW * torch.from_numpy(gains[:3]).to(x_3HW)[:, None, None]
            grey_1HW = x_3HW.mean(dim=0, keepdim=True)
            x_3HW = grey_1HW + float(gains[3]) * (x_3HW - grey_1HW)
        if self.blur > 0 and draws[4] < 0.5:
            x_3HW = gaussian_blur(x_3HW[None], max(self.blur * float(draws[5]), 1e-2))[0]
        if self.noise > 0 and draws[6] < 0.5:
            noise_3HW = generator.standard_normal(x_3HW.shape, dtype=np.float32)
            x_3HW = x_3HW + self.noise * float(draws[7]) * torch.from_numpy(noise_3HW)
        return x_3HW.clamp(0.0, 1.0)
