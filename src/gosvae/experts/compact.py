"""A compact segmentation network of dense 3x3 convolutions: the expert that ships in the package.

Depthwise convolutions are slow to train through on CPUs, so all convolutions are dense. Features at strides 4, 8 and
16 are merged before the classes are predicted at stride 4.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.config import Blocks, Channels, Config
from gosvae.experts.base import ExpertInfo, NetworkExpert
from gosvae.nn.blocks import NormalisedResidual
from gosvae.tensors import pad_to_multiple


class CompactConfig(Config):
    """Size of a compact segmentation network; the default has 1.9 M parameters."""

    kind: Literal["compact"] = "compact"
    widths: tuple[Channels, Channels, Channels, Channels] = (32, 64, 96, 128)
    """Numbers of channels at strides 2, 4, 8 and 16."""
    blocks: tuple[Blocks, Blocks, Blocks] = (2, 2, 3)
    """Numbers of residual blocks at strides 4, 8 and 16."""
    class_count: int = Field(gt=1, le=255)


def _down(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class CompactSegmenter(nn.Module):
    """Trainable network from RGB (B, 3, H, W) in [0, 1] to class logits (B, m, H, W); an expert holds it frozen."""

    feature_layers = ("stage8", "stage16", "merge4")

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        w2, w4, w8, w16 = config.widths
        n4, n8, n16 = config.blocks
        self.stem = _down(3, w2)
        self.stage4 = nn.Sequential(_down(w2, w4), *(NormalisedResidual(w4) for _ in range(n4)))
        self.stage8 = nn.Sequential(_down(w4, w8), *(NormalisedResidual(w8) for _ in range(n8)))
        # Dilation that grows at stride 16 widens the receptive field to most of a 256x512 picture.
        self.stage16 = nn.Sequential(_down(w8, w16), *(NormalisedResidual(w16, dilation=1 + i) for i in range(n16)))
        self.from16 = nn.Sequential(nn.Conv2d(w16, w8, 3, padding=1, bias=False), nn.BatchNorm2d(w8), nn.ReLU())
        self.merge8 = NormalisedResidual(w8)
        self.from8 = nn.Sequential(nn.Conv2d(w8, w4, 3, padding=1, bias=False), nn.BatchNorm2d(w4), nn.ReLU())
        self.merge4 = NormalisedResidual(w4)
        self.head = nn.Conv2d(w4, config.class_count, 1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        height, width = x_B3HW.shape[-2:]
        x = pad_to_multiple(x_B3HW, 16)
        f4 = self.stage4(self.stem(x * 4.0 - 2.0))
        f8 = self.stage8(f4)
        f16 = self.stage16(f8)
        f8 = self.merge8(f8 + _up2(self.from16(f16)))
        f4 = self.merge4(f4 + _up2(self.from8(f8)))
        logits = F.interpolate(self.head(f4).float(), scale_factor=4.0, mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def _up2(x_BCHW: Tensor) -> Tensor:
    return F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")


def random_compact_expert(class_names: tuple[str, ...], *, height: int = 256, width: int = 512) -> NetworkExpert:
    """Return an untrained expert with random weights, for tests and dry runs."""
    config = CompactConfig(widths=(8, 8, 8, 8), blocks=(1, 1, 1), class_count=len(class_names))
    return NetworkExpert(ExpertInfo("random", class_names, height, width), CompactSegmenter(config))


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters, trainable or not."""
    return sum(p.numel() for p in network.parameters())


def balanced_class_weights(counts_m: Tensor, *, floor: float = 1.02) -> Tensor:
    """Return class weights 1 / log(floor + share) (Paszke et al. 2016, ENet), for label counts of shape (m,)."""
    share_m = counts_m.double() / counts_m.sum().clamp_min(1)
    weights_m = 1.0 / torch.log(floor + share_m)
    return (weights_m / weights_m.mean()).float()
