"""The VQ autoencoder: encoder, quantizer and decoder as one trainable network (section II-A of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gosvae.config import Config
from gosvae.decoders import Decoder
from gosvae.encoders import Encoder
from gosvae.nn.autoencoder import AutoencoderConfig
from gosvae.quantizers import QuantizerConfig, build_quantizer


class VqModelConfig(Config):
    """Configuration of a complete VQ autoencoder."""

    neutral: ClassVar[Mapping[str, Any]] = {
        "autoencoder": {},
    }

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    quantizer: QuantizerConfig


@dataclass(frozen=True)
class Reconstruction:
    """Output of a network for a batch.

    Attributes:
        x_hat_B3HW: reconstruction, nominally in [0, 1], not clamped.
        indices_Bhw: int64 indices; for a plain autoencoder the symbols (B, D, h, w).
        terms: unweighted loss terms of the quantizer.
    """

    x_hat_B3HW: Tensor
    indices_Bhw: Tensor
    terms: dict[str, Tensor]


class VqAutoencoder(nn.Module):
    """Network from `x_B3HW` in [0, 1] to its reconstruction, through indices. H and W must be multiples of `stride`."""

    def __init__(self, config: VqModelConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config.quantizer)
        self.encoder = Encoder(config.autoencoder, self.quantizer.code_dim)
        self.decoder = Decoder(config.autoencoder, self.quantizer.code_dim)

    @property
    def stride(self) -> int:
        """Number of pixels per latent position on each axis, r."""
        return self.config.autoencoder.stride

    def forward(self, x_B3HW: Tensor) -> Reconstruction:
        z_BDhw = self.encoder(x_B3HW)
        quantized = self.quantizer(z_BDhw)
        return Reconstruction(self.decoder(quantized.z_q_BDhw), quantized.indices_Bhw, quantized.terms)

    @torch.inference_mode()
    def encode(self, x_B3HW: Tensor) -> Tensor:
        """Return the indices (B, h, w) of images whose sides are multiples of the stride."""
        return self.quantizer.encode(self.encoder(x_B3HW))

    @torch.inference_mode()
    def decode(self, indices_Bhw: Tensor) -> Tensor:
        """Return the reconstruction (B, 3, H, W), clamped to [0, 1]."""
        x_hat_B3HW: Tensor = self.decoder(self.quantizer.lookup(indices_Bhw)).float().clamp(0, 1)
        return x_hat_B3HW
