"""The variable-rate autoencoder: one network for all rates, a scalar-quantised latent, gains for each rate.

A level of quality, 0..255, scales the channels of the latent before they are rounded (gain units of Cui et al. 2021,
"Asymmetric gained deep image compression with continuous rate adaptation"): a small gain rounds a channel to 0, which
costs almost no bits. The encoder does not know the level, so it runs once for all rates. The network of the context
model is a part of the autoencoder: it is trained together with the codec and gives it the cost of every integer.

Axis legend: B images, D latent channels, h and w latent positions, H and W pixels, A anchors, L the bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gosvae.codecs.vq_model import Reconstruction
from gosvae.config import Config
from gosvae.entropy.latent_network import LEVELS, LatentContextConfig, LatentContextNetwork, interpolation
from gosvae.nn.pyramid import NO_MARGINS, Margins, PyramidConfig, PyramidDecoder, PyramidEncoder
from gosvae.nn.straight_through import straight_through

LATENT_GAIN = 8.0
"""Factor of the encoder's output, which is about 0.1 before training."""
_START_GAINS = (0.4, 4.0)
"""Initial gains at the lowest and highest level; across channels their ratio is raised to a power from 0.5 to 1.5."""


class VariableRateConfig(Config):
    """A variable-rate autoencoder.

    Attributes:
        pyramid: sizes of encoder and decoder.
        context: sizes of the context model; its `channels` are D and its `bound` is L.
        level: level of streams for which neither a level nor a budget is given.
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        "pyramid": {},
        "context": {"channels": 24},
        "level": 128,
    }

    pyramid: PyramidConfig = PyramidConfig()
    context: LatentContextConfig = LatentContextConfig(channels=24)
    level: int = Field(default=LEVELS // 2, ge=0, lt=LEVELS)


class VariableRateAutoencoder(nn.Module):
    """Network from `x_B3HW` in [0, 1] to its reconstruction at a level. H and W must be multiples of `stride`."""

    def __init__(self, config: VariableRateConfig) -> None:
        super().__init__()
        self.config = config
        channels, anchors = config.context.channels, config.context.anchors
        self.encoder = PyramidEncoder(config.pyramid, channels)
        self.decoder = PyramidDecoder(config.pyramid, channels, anchors)
        self.context = LatentContextNetwork(config.context)
        low, high = (math.log(gain) for gain in _START_GAINS)
        # From the start, channels are rounded to 0 at different levels, so that few are left at low rates.
        fall_D1 = torch.linspace(0.5, 1.5, channels)[:, None] * (high - low)
        self.log_gains_DA = nn.Parameter(high - fall_D1 * (1.0 - torch.linspace(0, 1, anchors)))
        self.log_inverse_gains_DA = nn.Parameter(-self.log_gains_DA.detach().clone())
        self.register_buffer("interpolation_LA", interpolation(anchors), persistent=False)
        first_level_D = config.context.first_level_of_each_channel()
        self.register_buffer("first_level_D", first_level_D, persistent=False)

    @property
    def stride(self) -> int:
        """Number of pixels per latent position on each axis, r."""
        return self.config.pyramid.stride

    def _conditions(self, level_B: Tensor) -> Tensor:
        """Return the weights (B, A) of the anchors at the levels."""
        interpolation_LA: Tensor = self.get_buffer("interpolation_LA")
        return interpolation_LA[level_B]

    def transform(self, x_B3HW: Tensor) -> Tensor:
        """Return the encoder's output, which is the latent (B, D, h, w) before the gain, float32."""
        latent_BDhw: Tensor = LATENT_GAIN * self.encoder(x_B3HW).float()
        return latent_BDhw

    def scaled(self, latent_BDhw: Tensor, level_B: Tensor) -> Tensor:
        """Return the latent at its level, in (-L, L), to be rounded; 0 in channels that are not coded at that level."""
        bound = float(self.config.context.bound)
        coded_BD = level_B[:, None] >= self.get_buffer("first_level_D")
        gains_BD: Tensor = coded_BD * (self._conditions(level_B) @ self.log_gains_DA.T).exp()
        scaled_BDhw: Tensor = bound * torch.tanh(latent_BDhw * gains_BD[..., None, None] / bound)
        return scaled_BDhw

    def picture(
        self,
        rounded_BDhw: Tensor,
        level_B: Tensor,
        lost_B1hw: Tensor | None = None,
        margins: Margins = NO_MARGINS,
    ) -> Tensor:
        """Return the reconstruction (B, 3, H, W), not clamped, of integers in -L..L.

        `lost_B1hw` is 1 where they are not known; None means that all are known. For `margins` see `PyramidDecoder`.
        """
        if lost_B1hw is not None:
            rounded_BDhw = rounded_BDhw * (1.0 - lost_B1hw)
        conditions_BA = self._conditions(level_B)
        inverse_BD = (conditions_BA @ self.log_inverse_gains_DA.T).exp()
        latent_BDhw = rounded_BDhw * inverse_BD[..., None, None]
        x_hat_B3HW: Tensor = self.decoder(latent_BDhw, conditions_BA, lost_B1hw, margins)
        return x_hat_B3HW

    def forward(
        self, x_B3HW: Tensor, level_B: Tensor, lost_B1hw: Tensor | None = None
    ) -> tuple[Reconstruction, Tensor]:
        """Return, for training, the reconstruction and the scaled latent (B, D, h, w) that was rounded for it.

        Rounding passes gradients straight through. The decoder does not see the positions where `lost_B1hw` is 1.
        """
        y_BDhw = self.scaled(self.transform(x_B3HW), level_B)
        rounded_BDhw = straight_through(y_BDhw, y_BDhw.round())
        symbols_BDhw = rounded_BDhw.detach().long() + self.config.context.bound
        return Reconstruction(self.picture(rounded_BDhw, level_B, lost_B1hw), symbols_BDhw, {}), y_BDhw

    @torch.inference_mode()
    def decode(self, symbols_BDhw: Tensor, level_B: Tensor, margins: Margins = NO_MARGINS) -> Tensor:
        """Return the reconstruction (B, 3, H, W), clamped to [0, 1], of symbols 0..2L, -1 where they are not known.

        For `margins` see `PyramidDecoder`.
        """
        rounded_BDhw = (symbols_BDhw - self.config.context.bound).float()
        lost_B1hw = (symbols_BDhw[:, :1] < 0).float()
        lost = lost_B1hw if lost_B1hw.any() else None
        return self.picture(rounded_BDhw, level_B, lost, margins).float().clamp(0, 1)
