"""A small network that makes one picture of those of two layers.

The picture of the task layer shows what an expert needs, in plausible texture. That of the detail layer is faithful
and, with few bytes, blurred. The network begins as the choice of the second, and learns by imitation what to take from
the first and what to restore.

Axis legend: B images, C channels, P conditions, H and W pixels, h and w positions of the coarse grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.config import Config
from gosvae.nn.blocks import Residual
from gosvae.nn.finish import Finish
from gosvae.tensors import pad_to_multiple

UNSHUFFLE = 8
"""Pixels for each position of the coarse grid on each axis."""
_FINE = 4
"""Pixels for each position of the fine grid on each axis."""
_GAIN = 0.1
"""Factor of the change of the picture, so that a step of training changes it little."""
_SLOPE = 0.2
"""Slope of the activations below 0; with 0, all channels of a short training can fall silent."""
CONDITIONS = 4
"""Number of values that describe the layers: bits per pixel, quality, reduction, whether there is a task layer."""


class FusionConfig(Config):
    """Sizes of a fusion network.

    Attributes:
        channels: number of channels on the fine grid, of 4 pixels.
        blocks: number of residual blocks there.
        coarse_channels: number of channels on the coarse grid, of 8 pixels.
        coarse_blocks: number of residual blocks there.
        finish_channels: number of channels of the layer at full resolution (`Finish`).
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        "channels": 48,
        "blocks": 2,
        "coarse_channels": 64,
        "coarse_blocks": 3,
        "finish_channels": 8,
    }

    channels: int = Field(default=48, ge=1, le=512)
    blocks: int = Field(default=2, ge=0, le=32)
    coarse_channels: int = Field(default=64, ge=1, le=512)
    coarse_blocks: int = Field(default=3, ge=0, le=32)
    finish_channels: int = Field(default=8, ge=1, le=64)

    @property
    def halo(self) -> int:
        """Upper bound of the number of positions of the coarse grid around a tile that can influence it."""
        return 2 * self.coarse_blocks + self.blocks + 4


class FusionNetwork(nn.Module):
    """Network from the pictures of the two layers to one picture; a new network returns that of the detail layer."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse = config.channels, config.coarse_channels
        self.first = nn.Conv2d(6 * _FINE**2 + CONDITIONS, fine, 3, padding=1)
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.coarse_body = nn.Sequential(*(Residual(coarse) for _ in range(config.coarse_blocks)))
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.body = nn.Sequential(*(Residual(fine) for _ in range(config.blocks)))
        self.to_image = nn.Conv2d(fine, 3 * _FINE**2, 3, padding=1)
        self.finish = Finish(fine, config.finish_channels, _FINE, 1)
        for parameter in self.to_image.parameters():
            nn.init.zeros_(parameter)

    def forward(self, base_B3HW: Tensor, detail_B3HW: Tensor, condition_BP: Tensor) -> Tensor:
        """Return the fused pictures (B, 3, H, W), nominally in [0, 1] and not clamped.

        Args:
            base_B3HW: pictures of the task layer, in [0, 1]; those of the detail layer where there is none.
            detail_B3HW: pictures of the detail layer at full size, in [0, 1].
            condition_BP: description of the layers, see `conditions`.
        """
        height, width = detail_B3HW.shape[-2:]
        return self.fuse(self.gathered(base_B3HW, detail_B3HW), condition_BP)[..., :height, :width]

    def gathered(self, base_B3HW: Tensor, detail_B3HW: Tensor) -> Tensor:
        """Return both pictures as channels of the coarse grid, (B, 384, h, w); their sides are rounded up."""
        both_B6HW = pad_to_multiple(torch.cat([base_B3HW, detail_B3HW], dim=1), UNSHUFFLE)
        return F.pixel_unshuffle(both_B6HW, UNSHUFFLE)

    def fuse(self, both_BChw: Tensor, condition_BP: Tensor) -> Tensor:
        """Return the fused pictures (B, 3, 8 h, 8 w) of what `gathered` returns, or of a tile of it."""
        both_B6HW = F.pixel_shuffle(both_BChw, UNSHUFFLE)
        fine_BCHW = F.pixel_unshuffle(both_B6HW - 0.5, _FINE)
        planes_BPHW = condition_BP[..., None, None].expand(len(both_BChw), -1, *fine_BCHW.shape[-2:])
        x_BCHW = self.first(torch.cat([fine_BCHW, planes_BPHW], dim=1))
        coarse_BChw = self.coarse_body(self.down(F.leaky_relu(x_BCHW, _SLOPE)))
        x_BCHW = x_BCHW + F.pixel_shuffle(self.up(F.leaky_relu(coarse_BChw, _SLOPE)), 2)
        x_BCHW = F.leaky_relu(self.body(x_BCHW), _SLOPE)
        picture_B3HW = both_B6HW[:, 3:] + F.pixel_shuffle(_GAIN * self.to_image(x_BCHW), _FINE)
        finished_B3HW: Tensor = self.finish(picture_B3HW, x_BCHW)
        fused_B3HW = picture_B3HW + _GAIN * (finished_B3HW - picture_B3HW)
        return fused_B3HW.float()


def conditions(bits_per_pixel: float, quality: int, reduction: int, *, with_base: bool) -> list[float]:
    """Return the P values that describe the layers, about -1 to 1 each.

    Args:
        bits_per_pixel: bits of the detail layer for each pixel of the full picture.
        quality: quality of its encoder, 1..100.
        reduction: factor by which its coded picture is smaller, on each axis.
        with_base: whether there is a picture of the task layer.
    """
    rate = math.log2(max(bits_per_pixel, 1e-4))
    return [(rate + 2.0) / 4.0, quality / 50.0 - 1.0, reduction - 2.0, float(with_base)]
