"""Sizes that an encoder and its mirrored decoder share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from gosvae.config import Config

Architecture = Literal["shallow", "residual", "compact", "vqgan"]
UNSHUFFLE = 4
"""The compact encoder starts by folding 4x4 pixels into channels: its convolutions all run on coarse grids."""


class AutoencoderConfig(Config):
    """Sizes of an encoder and its mirrored decoder.

    Attributes:
        architecture: `shallow` (classic VQ-VAE, 0.70 M parameters at the defaults), `residual`, `compact`, or `vqgan`
            (Esser et al. 2021: group normalisation, swish, and attention where it is turned on).
        stride: r, pixels per latent position on each axis; a power of two.
        width: channels of the latent side; half of it at stride 2 (shallow, residual). Of vqgan those at stride 1.
        decoder_width: as width, for the decoder; None mirrors the encoder.
        blocks: residual blocks on the latent grid, of vqgan on every grid; decoder_blocks the same for the decoder.
        hidden_width: channels inside a shallow residual block.
        multipliers: of vqgan: channels at strides 1, 2, 4, ..., r as multiples of the width; None is 1, 2, 4, 4, ...
        attention: of vqgan: self-attention on the latent grid; its time is quadratic in the number of positions.
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        "architecture": "shallow",
        "stride": 4,
        "width": 128,
        "decoder_width": None,
        "blocks": 2,
        "decoder_blocks": None,
        "hidden_width": 32,
        "multipliers": None,
        "attention": False,
    }

    architecture: Architecture = "shallow"
    stride: int = 4
    width: int = Field(default=128, ge=2)
    decoder_width: int | None = Field(default=None, ge=2)
    blocks: int = Field(default=2, ge=0)
    decoder_blocks: int | None = Field(default=None, ge=0)
    hidden_width: int = Field(default=32, ge=1)
    multipliers: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    attention: bool = False

    @field_validator("stride")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value not in (2, 4, 8, 16, 32, 64):
            raise ValueError("expected 2, 4, 8, 16, 32 or 64")
        return value

    @model_validator(mode="after")
    def _fits_architecture(self) -> AutoencoderConfig:
        if self.architecture != "vqgan" and (self.multipliers is not None or self.attention):
            raise ValueError("multipliers and attention belong to the architecture vqgan")
        if self.multipliers is not None and len(self.multipliers) != self.depth + 1:
            raise ValueError(f"stride {self.stride} needs {self.depth + 1} multipliers, one for each grid")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What only vqgan has is left out elsewhere: runs that began before it existed stay the same runs."""
        tree: dict[str, Any] = write(self)
        if self.architecture != "vqgan":
            tree = {key: value for key, value in tree.items() if key not in ("multipliers", "attention")}
        return tree

    @property
    def depth(self) -> int:
        """Number of halvings, log2 of the stride."""
        return self.stride.bit_length() - 1

    @property
    def halo(self) -> int | None:
        """Latent positions beyond a tile that can influence it, an upper bound for encoder and decoder.

        None where the whole picture has influence: the normalisation of vqgan, and its attention.
        """
        if self.architecture == "vqgan":
            return None
        return 2 * max(self.blocks, self.decoder_blocks or 0) + 8


def stage_widths(width: int, depth: int) -> list[int]:
    """Channels at strides 1, 2, 4, ... of the residual architecture: a quarter, a half, then the full width."""
    return [max(1, width // 4), max(1, width // 2), *([width] * (depth - 1))]


def grid_widths(config: AutoencoderConfig, width: int) -> list[int]:
    """Channels at strides 1, 2, 4, ..., r of the vqgan architecture, `width` at stride 1."""
    multipliers = config.multipliers or tuple(min(4, 2**i) for i in range(config.depth + 1))
    return [width * multiplier for multiplier in multipliers]
