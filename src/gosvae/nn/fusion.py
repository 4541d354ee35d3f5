"""A small network that makes one picture of those of two layers.

The picture of the task layer shows what an expert needs, in plausible texture. That of the detail layer is faithful
and, with few bytes, blurred. The network begins as the choice of the second, and learns by imitation what to take from
the first.

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

UNSHUFFLE = 4
"""Pixels for each position of the coarse grid on each axis."""
CONDITIONS = 3
"""Number of values that describe the detail layer: bits per pixel, quality and reduction."""


class FusionConfig(Config):
    """Sizes of a fusion network.

    Attributes:
        channels: number of channels on the coarse grid.
        blocks: number of residual blocks there.
        finish_channels: number of channels of the layer at full resolution (`Finish`).
    """

    neutral: ClassVar[Mapping[str, Any]] = {"channels": 64, "blocks": 3, "finish_channels": 8}

    channels: int = Field(default=64, ge=1, le=512)
    blocks: int = Field(default=3, ge=0, le=32)
    finish_channels: int = Field(default=8, ge=1, le=64)

    @property
    def halo(self) -> int:
        """Upper bound of the number of positions of the coarse grid around a tile that can influence it."""
        return 2 * self.blocks + 4


class FusionNetwork(nn.Module):
    """Network from the pictures of the two layers to one picture; a new network returns that of the detail layer."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv2d(6 * UNSHUFFLE**2 + CONDITIONS, config.channels, 3, padding=1)
        self.body = nn.Sequential(*(Residual(config.channels) for _ in range(config.blocks)))
        self.to_image = nn.Conv2d(config.channels, 3 * UNSHUFFLE**2, 3, padding=1)
        self.finish = Finish(config.channels, config.finish_channels, UNSHUFFLE, 1)
        for parameter in self.to_image.parameters():
            nn.init.zeros_(parameter)

    def forward(self, base_B3HW: Tensor, detail_B3HW: Tensor, condition_BP: Tensor) -> Tensor:
        """Return the fused pictures (B, 3, H, W), nominally in [0, 1] and not clamped.

        Args:
            base_B3HW: pictures of the task layer, in [0, 1].
            detail_B3HW: pictures of the detail layer at full size, in [0, 1].
            condition_BP: what describes the detail layer, see `conditions`.
        """
        height, width = detail_B3HW.shape[-2:]
        return self.fuse(self.gathered(base_B3HW, detail_B3HW), condition_BP)[..., :height, :width]

    def gathered(self, base_B3HW: Tensor, detail_B3HW: Tensor) -> Tensor:
        """Return both pictures as channels of the coarse grid, (B, 96, h, w); their sides are rounded up."""
        both_B6HW = pad_to_multiple(torch.cat([base_B3HW, detail_B3HW], dim=1), UNSHUFFLE)
        return F.pixel_unshuffle(both_B6HW, UNSHUFFLE)

    def fuse(self, both_BChw: Tensor, condition_BP: Tensor) -> Tensor:
        """Return the fused pictures (B, 3, 4 h, 4 w) of what `gathered` returns, or of a tile of it."""
        planes_BPhw = condition_BP[..., None, None].expand(len(both_BChw), -1, *both_BChw.shape[-2:])
        x_BChw = F.relu(self.body(self.first(torch.cat([both_BChw - 0.5, planes_BPhw], dim=1))))
        detail_BChw = both_BChw[:, both_BChw.shape[1] // 2 :]
        picture_B3HW = F.pixel_shuffle(detail_BChw + self.to_image(x_BChw), UNSHUFFLE)
        fused_B3HW: Tensor = self.finish(picture_B3HW, x_BChw)
        return fused_B3HW.float()


def conditions(bits_per_pixel: float, quality: int, reduction: int) -> list[float]:
    """Return the P values that describe a detail layer, about -1 to 1 each.

    Args:
        bits_per_pixel: bits of the layer for each pixel of the full picture.
        quality: quality of the encoder, 1..100.
        reduction: factor by which the coded picture is smaller, on each axis.
    """
    rate = math.log2(max(bits_per_pixel, 1e-4))
    return [(rate + 2.0) / 4.0, quality / 50.0 - 1.0, reduction - 2.0]
