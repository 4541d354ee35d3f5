"""A densely connected network with pyramid pooling: a third architecture beside the compact expert and the U-Net.

It judges codecs that imitated the other two. Within a grid every convolution sees the results of all before it (Huang
et al. 2017), grids are left by average pooling, means over the whole picture and its parts are looked at beside the
coarsest grid (Zhao et al. 2017), and the grids are added up on the way to the classes (Lin et al. 2017).

Axis legend: B images, C channels, H and W positions.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.config import Blocks, Channels, Config
from gosvae.tensors import pad_to_multiple

POOLED = (1, 2, 4)
"""Numbers of rows and columns of the means that are taken over parts of the picture."""


class DenseConfig(Config):
    """Size of a densely connected network for segmentation; the default has 0.9 M parameters."""

    kind: Literal["dense"] = "dense"
    widths: tuple[Channels, Channels, Channels, Channels] = (32, 48, 64, 112)
    """Channels at strides 2, 4, 8 and 16 where a grid is entered and left, multiples of 4."""
    blocks: tuple[Blocks, Blocks, Blocks] = (3, 4, 4)
    """Densely connected convolutions at strides 4, 8 and 16, each of half as many channels as its grid."""
    class_count: int = Field(gt=1, le=255)

    @field_validator("widths")
    @classmethod
    def _whole_parts(cls, widths: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        if any(width % 4 for width in widths):
            raise ValueError("every width must be a multiple of 4: its half and its quarter are widths of other layers")
        return widths


def _convolution(in_channels: int, out_channels: int, side: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, side, stride=stride, padding=side // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.1),
    )


class DenseGrid(nn.Module):
    """Densely connected convolutions on one grid, (B, C, H, W) to the same."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        growth = channels // 2
        self.convolutions = nn.ModuleList(_convolution(channels + i * growth, growth) for i in range(count))
        self.merge = _convolution(channels + count * growth, channels, side=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x_BCHW = torch.cat([x_BCHW, convolution(x_BCHW)], dim=1)
        merged_BCHW: Tensor = self.merge(x_BCHW)
        return merged_BCHW


class PyramidPooling(nn.Module):
    """Means over the whole picture and over its parts, beside every position: (B, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.looks = nn.ModuleList(nn.Conv2d(channels, channels // 4, 1) for _ in POOLED)
        self.merge = _convolution(channels + len(POOLED) * (channels // 4), channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        parts = [x_BCHW]
        for side, look in zip(POOLED, self.looks, strict=True):
            means = look(F.adaptive_avg_pool2d(x_BCHW, side))
            parts.append(F.interpolate(means, size=x_BCHW.shape[-2:], mode="bilinear", align_corners=False))
        merged_BCHW: Tensor = self.merge(torch.cat(parts, dim=1))
        return merged_BCHW


class DenseSegmenter(nn.Module):
    """RGB (B, 3, H, W) in [0, 1] to class logits (B, m, H, W); trainable, the expert wraps it frozen."""

    feature_layers = ("grid8", "grid16", "last4")

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.config = config
        w2, w4, w8, w16 = config.widths
        n4, n8, n16 = config.blocks
        self.stem = _convolution(3, w2, side=5, stride=2)
        self.enter4 = _convolution(w2, w4)
        self.grid4 = DenseGrid(w4, n4)
        self.enter8 = _convolution(w4, w8, side=1)
        self.grid8 = DenseGrid(w8, n8)
        self.enter16 = _convolution(w8, w16, side=1)
        self.grid16 = nn.Sequential(DenseGrid(w16, n16), PyramidPooling(w16))
        self.down16, self.down8, self.down4 = (nn.Conv2d(w, w4, 1) for w in (w16, w8, w4))
        self.last8, self.last4 = _convolution(w4, w4), _convolution(w4, w4)
        self.head = nn.Conv2d(w4 + w2, config.class_count, 1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        height, width = x_B3HW.shape[-2:]
        f2 = self.stem(pad_to_multiple(x_B3HW, 16) * 4.0 - 2.0)
        f4 = self.grid4(self.enter4(F.avg_pool2d(f2, 2)))
        f8 = self.grid8(self.enter8(F.avg_pool2d(f4, 2)))
        f16 = self.grid16(self.enter16(F.avg_pool2d(f8, 2)))
        p8 = self.last8(self.down8(f8) + _up2(self.down16(f16)))
        p4 = self.last4(self.down4(f4) + _up2(p8))
        # The stem's grid adds the outlines.
        logits = F.interpolate(
            self.head(torch.cat([_up2(p4), f2], dim=1)).float(), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        return logits[..., :height, :width]


def _up2(x_BCHW: Tensor) -> Tensor:
    return F.interpolate(x_BCHW, scale_factor=2.0, mode="bilinear", align_corners=False)
