"""Random views of picture and reconstruction: what a judge is shown in place of the two as they are.

A network sees pictures through strides. A reconstruction that must please it in one position alone can hide errors
between the strides, as a lattice that other networks trip over. So original and reconstruction are moved, scaled and
blurred together, in another way for every judge and every step.

Axis legend: B images, H and W pixels.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gosvae.config import Config
from gosvae.nn.blur import gaussian_blur


class ViewConfig(Config):
    """How far views differ from the pictures; by default they are the pictures.

    Attributes:
        shift: Largest shift on each axis, in pixels; shifts are no whole numbers.
        scale: s; each axis is scaled by a factor of its own from 1 / (1 + s) to 1 + s, because many networks squeeze
            pictures.
        blur: Largest standard deviation of the Gaussian, in pixels. Half of the views are not blurred.
    """

    shift: float = Field(default=0.0, ge=0)
    scale: float = Field(default=0.0, ge=0, lt=1)
    blur: float = Field(default=0.0, ge=0, le=2)

    @property
    def changes(self) -> bool:
        """Whether views differ from the pictures."""
        return max(self.shift, self.scale, self.blur) > 0

    def view(self, x_B3HW: Tensor, x_hat_B3HW: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return both batches in one random view; their size stays, and what comes in from outside is mirrored."""
        if not self.changes:
            return x_B3HW, x_hat_B3HW
        draws = torch.rand(6, generator=generator).tolist()
        both = [x_B3HW, x_hat_B3HW]  # each alone: the original needs no gradient
        if self.shift > 0 or self.scale > 0:
            tall, wide = ((1.0 + self.scale) ** (2.0 * draw - 1.0) for draw in (draws[0], draws[5]))
            down, right = (self.shift * (2.0 * draw - 1.0) for draw in draws[1:3])
            both = [_moved(each_B3HW, tall, wide, down, right) for each_B3HW in both]
        if self.blur > 0 and draws[3] < 0.5:
            both = [gaussian_blur(each_B3HW, max(self.blur * draws[4], 1e-2)) for each_B3HW in both]
        return both[0], both[1]


def _moved(x_B3HW: Tensor, tall: float, wide: float, down: float, right: float) -> Tensor:
    """Return the pictures, enlarged by a factor on each axis about their middle, and shifted by pixels."""
    height, width = x_B3HW.shape[-2:]
    affine_23 = torch.tensor([[1 / wide, 0.0, -2.0 * right / width], [0.0, 1 / tall, -2.0 * down / height]])
    affine_B23 = affine_23.to(x_B3HW).expand(len(x_B3HW), 2, 3)
    grid_BHW2 = F.affine_grid(affine_B23, list(x_B3HW.shape), align_corners=False)
    # Bicubic: bilinear interpolation between pixels would be a blur of its own, and hide a lattice half of the time.
    return F.grid_sample(x_B3HW, grid_BHW2, mode="bicubic", padding_mode="reflection", align_corners=False)
