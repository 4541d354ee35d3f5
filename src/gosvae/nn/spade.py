"""Spatially adaptive normalisation: a map of classes sets the scale and the shift of features at each position.

Axis legend: B images, C channels, L label channels (one for each class, and edges), h and w positions.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

MOST_GROUPS = 32
"""Largest number of groups of a group normalisation."""


class SemanticCondition:
    """A semantic map at every resolution at which a network needs it.

    Args:
        map_BLhw: label channels at the network's finest resolution.
        keep_bytes: largest memory, in bytes, in which the scales and shifts of the normalisations are kept. They do not
            depend on the features, so a sampler that runs the network many times on one map computes them only once, as
            long as they fit.
    """

    def __init__(self, map_BLhw: Tensor, *, keep_bytes: int = 0) -> None:
        self._maps = {(map_BLhw.shape[-2], map_BLhw.shape[-1]): map_BLhw}
        self._finest = map_BLhw
        self._kept: dict[SpadeGroupNorm, tuple[Tensor, Tensor]] = {}
        self._bytes_left = keep_bytes

    def at(self, height: int, width: int) -> Tensor:
        """Return the map (B, L, height, width), resized by the nearest neighbour."""
        if (height, width) not in self._maps:
            self._maps[height, width] = F.interpolate(self._finest, size=(height, width), mode="nearest")
        return self._maps[height, width]

    def modulation(self, norm: SpadeGroupNorm, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the scale and the shift of a normalisation, both (B, C, height, width)."""
        if norm in self._kept:
            return self._kept[norm]
        result = norm.modulation(self.at(height, width))
        taken = sum(value.numel() * value.element_size() for value in result)
        if taken <= self._bytes_left:
            self._kept[norm] = result
            self._bytes_left -= taken
        return result


def group_count(channels: int) -> int:
    """Return the number of groups of a group normalisation: 32, or their greatest common divisor with the channels."""
    return math.gcd(MOST_GROUPS, channels)


class SpadeGroupNorm(nn.Module):
    """SPADE (Park et al. 2019, Eq. 1) on group normalisation, as in semantic diffusion models (Wang et al. 2022).

    The result is `norm(x) * (1 + gamma(map)) + beta(map)`, with a shared 3x3 convolution and ReLU before the
    convolutions that give gamma and beta.

    Args:
        channels: number of channels of the features, C.
        label_channels: number of channels of the map, L.
        hidden: number of channels of the shared convolution; 128 in both papers.
    """

    def __init__(self, channels: int, label_channels: int, hidden: int = 128) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(group_count(channels), channels, affine=False)
        self.shared = nn.Conv2d(label_channels, hidden, 3, padding=1)
        self.scale = nn.Conv2d(hidden, channels, 3, padding=1)
        self.shift = nn.Conv2d(hidden, channels, 3, padding=1)

    def modulation(self, map_BLhw: Tensor) -> tuple[Tensor, Tensor]:
        """Return gamma and beta, both (B, C, h, w), of a map at the features' resolution."""
        hidden = F.relu(self.shared(map_BLhw))
        return self.scale(hidden), self.shift(hidden)

    def forward(self, x_BChw: Tensor, condition: SemanticCondition) -> Tensor:
        """Return the features (B, C, h, w), normalised and modulated."""
        gamma_BChw, beta_BChw = condition.modulation(self, x_BChw.shape[-2], x_BChw.shape[-1])
        normal_BChw: Tensor = self.norm(x_BChw)
        return normal_BChw * (1 + gamma_BChw) + beta_BChw
