"""Sizes that an encoder and its mirrored decoder share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from gosvae.config import Config

Architecture = Literal["shallow", "residual", "compact"]
UNSHUFFLE = 4
"""The compact encoder starts by folding 4x4 pixels into channels: its convolutions all run on coarse grids."""


class AutoencoderConfig(Config):
    """Sizes of an encoder and its mirrored decoder.

    Attributes:
        architecture: `shallow` (classic VQ-VAE, 0.70 M parameters at the defaults), `residual` or `compact`.
        stride: r, pixels per latent position on each axis; a power of two.
        width: channels of the latent side; half of it at stride 2 (shallow, residual).
        decoder_width: as width, for the decoder; None mirrors the encoder.
        blocks: residual blocks on the latent grid; decoder_blocks the same for the decoder.
        hidden_width: channels inside a shallow residual block.
    """

    architecture: Architecture = "shallow"
    stride: int = 4
    width: int = Field(default=128, ge=2)
    decoder_width: int | None = Field(default=None, ge=2)
    blocks: int = Field(default=2, ge=0)
    decoder_blocks: int | None = Field(default=None, ge=0)
    hidden_width: int = Field(default=32, ge=1)

    @field_validator("stride")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value not in (2, 4, 8, 16, 32, 64):
            raise ValueError("expected 2, 4, 8, 16, 32 or 64")
        return value

    @property
    def depth(self) -> int:
        """Number of halvings, log2 of the stride."""
        return self.stride.bit_length() - 1

    @property
    def halo(self) -> int:
        """Latent positions beyond a tile that can influence it, an upper bound for encoder and decoder."""
        return 2 * max(self.blocks, self.decoder_blocks or 0) + 8


def stage_widths(width: int, depth: int) -> list[int]:
    """Channels at strides 1, 2, 4, ... of the residual architecture: a quarter, a half, then the full width."""
    return [max(1, width // 4), max(1, width // 2), *([width] * (depth - 1))]
