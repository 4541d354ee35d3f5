"""The plain convolutional autoencoder with a scalar-quantised latent (Table I of the paper, "Autoencoder").

The latent is bounded by tanh and rounded to fine integers. A step of s fine integers merges them to symbols, so that
one network serves many rates; everything between the encoder's rounding and the decoder's lookup is integer.

Axis legend: B images, D latent channels, h and w latent positions, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from gosvae.codecs.vq_model import Reconstruction
from gosvae.config import Config
from gosvae.decoders import Decoder
from gosvae.encoders import Encoder
from gosvae.nn.autoencoder import AutoencoderConfig
from gosvae.nn.straight_through import straight_through

LATENT_GAIN = 8.0
"""Factor of the latent before the tanh: an untrained encoder gives about 0.05, which would all be rounded to 0."""


class AutoencoderModelConfig(Config):
    """A convolutional autoencoder and the grid that its latent is rounded to. The defaults have 0.13 M parameters.

    Attributes:
        autoencoder: sizes of encoder and decoder.
        latent_channels: number of channels, D.
        fine_levels: largest fine integer, L; the latent, in (-1, 1), is rounded to the integers -L..L.
        step: number of fine integers that a symbol stands for where no budget is given; it sets the rate.
        training_steps: steps used in training: image i of a batch has the step at i modulo their number, so that the
            decoder learns several rates. An empty tuple means `step` alone.
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        "autoencoder": {"stride": 8, "width": 42, "blocks": 1, "hidden_width": 24},
        "latent_channels": 16,
        "fine_levels": 64,
        "step": 10,
        "training_steps": [],
    }

    autoencoder: AutoencoderConfig = AutoencoderConfig(stride=8, width=42, blocks=1, hidden_width=24)
    latent_channels: int = Field(default=16, ge=1, le=256)
    fine_levels: int = Field(default=64, ge=1, le=127)
    step: int = Field(default=10, ge=1)
    training_steps: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _steps_on_the_grid(self) -> AutoencoderModelConfig:
        for step in (self.step, *self.training_steps):
            if not 1 <= step <= self.largest_step:
                raise ValueError(f"step {step}: expected 1..{self.largest_step}, with {self.fine_levels} fine levels")
        return self

    @property
    def largest_step(self) -> int:
        """Largest step, 2 L + 1: all fine integers are one symbol, and nothing is left to send."""
        return 2 * self.fine_levels + 1


def merge(fine: Tensor, step: Tensor | int) -> Tensor:
    """Return the symbols floor((fine + floor(step / 2)) / step): a uniform quantizer with a bin around 0."""
    half = step // 2
    return torch.div(fine + half, step, rounding_mode="floor")


class ScalarAutoencoder(nn.Module):
    """Network from `x_B3HW` in [0, 1] to its reconstruction, through integers; H and W are multiples of `stride`."""

    def __init__(self, config: AutoencoderModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.autoencoder, config.latent_channels)
        self.decoder = Decoder(config.autoencoder, config.latent_channels)

    @property
    def stride(self) -> int:
        """Number of pixels per latent position on each axis, r."""
        return self.config.autoencoder.stride

    def _latent(self, x_B3HW: Tensor) -> Tensor:
        """Return `z_BDhw` in (-1, 1), in float32 even under autocast, since half precision is too coarse."""
        return torch.tanh(LATENT_GAIN * self.encoder(x_B3HW).float())

    def forward(self, x_B3HW: Tensor) -> Reconstruction:
        """Return the reconstruction of a training batch, whose latent is rounded with the training steps.

        Rounding is straight-through (Theis et al. 2017, Lossy image compression with compressive autoencoders) and
        adds no uniform noise (Ballé et al. 2017), so it needs no random numbers and a resumed run is bit for bit the
        same.
        """
        z_BDhw = self._latent(x_B3HW)
        steps = self.config.training_steps or (self.config.step,)
        step_B111 = torch.tensor([steps[i % len(steps)] for i in range(len(x_B3HW))], device=z_BDhw.device)
        step_B111 = step_B111.view(-1, 1, 1, 1)
        fine_BDhw = torch.round(z_BDhw.detach() * self.config.fine_levels).long()
        symbols_BDhw = merge(fine_BDhw, step_B111)
        z_q_BDhw = straight_through(z_BDhw, self.dequantise(symbols_BDhw, step_B111))
        return Reconstruction(self.decoder(z_q_BDhw), symbols_BDhw, {})

    @torch.inference_mode()
    def encode(self, x_B3HW: Tensor) -> Tensor:
        """Return fine integers (B, D, h, w), int16 in -L..L, of images whose sides are multiples of the stride."""
        levels = self.config.fine_levels
        fine_BDhw: Tensor = torch.round(self._latent(x_B3HW) * levels).clamp(-levels, levels).short()
        return fine_BDhw

    def dequantise(self, symbols_BDhw: Tensor, step: Tensor | int) -> Tensor:
        """Return the latent that symbols stand for: symbol * step / L."""
        return (symbols_BDhw * step).float() / self.config.fine_levels

    @torch.inference_mode()
    def decode(self, symbols_BDhw: Tensor, step: Tensor | int) -> Tensor:
        """Return the reconstruction (B, 3, H, W), clamped to [0, 1]; the step is one for all, or (B, 1, 1, 1)."""
        x_hat_B3HW: Tensor = self.decoder(self.dequantise(symbols_BDhw, step)).float().clamp(0, 1)
        return x_hat_B3HW
