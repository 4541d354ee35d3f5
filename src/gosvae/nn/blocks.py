"""Convolutional building blocks. Axis legend: B images, C channels, H and W positions.

Except for `NormalisedResidual`, no block normalises over positions: the result of a tile of a large picture must depend
on its neighbourhood alone, so that pictures can be processed in tiles with the same result.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ShallowResidual(nn.Module):
    """Residual block of the classic VQ-VAE (van den Oord et al. 2017): ReLU, 3x3 to few channels, ReLU, 1x1 back."""

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden_channels, 3, padding=1, bias=False)
        self.expand = nn.Conv2d(hidden_channels, channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        change: Tensor = self.expand(F.relu(self.reduce(F.relu(x_BCHW))))
        return x_BCHW + change


class Residual(nn.Module):
    """Pre-activation residual block (He et al. 2016) of two dense 3x3 convolutions without normalisation.

    The second convolution starts at zero, so that a deep stack starts as the identity (Zhang et al. 2019, Fixup).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        change: Tensor = self.second(F.relu(self.first(F.relu(x_BCHW))))
        return x_BCHW + change


class NormalisedResidual(nn.Module):
    """Residual block with batch normalisation (He et al. 2015) for experts, which see whole pictures and are frozen."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(x_BCHW + self.body(x_BCHW))
