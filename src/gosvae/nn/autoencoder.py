"""Sizes of an encoder and its mirrored decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from gosvae.config import MOST_CHANNELS, Blocks, Channels, Config

Architecture = Literal["shallow", "residual", "compact", "vqgan"]
UNSHUFFLE = 4
"""Side, in pixels, of the squares that the compact encoder folds into channels, so that it runs on coarse grids."""


class AutoencoderConfig(Config):
    """Sizes of an encoder and its mirrored decoder.

    Attributes:
        architecture: `shallow` (classic VQ-VAE, 0.70 M parameters at the defaults), `residual`, `compact`, or `vqgan`
            (Esser et al. 2021: group normalisation, swish, and attention where it is turned on).
        stride: number of pixels per latent position on each axis, r; a power of two.
        width: number of channels on the latent side, half of which are at stride 2 (shallow, residual); in vqgan the
            number at stride 1.
        decoder_width: width of the decoder; None mirrors the encoder.
        blocks: number of residual blocks on the latent grid; in vqgan on every grid.
        decoder_blocks: number of residual blocks of the decoder; None mirrors the encoder.
        hidden_width: number of channels inside a shallow residual block.
        multipliers: numbers of channels at strides 1, 2, 4, ..., r as multiples of the width, for vqgan only; None
            means 1, 2, 4, 4, ...
        attention: whether the latent grid has self-attention, for vqgan only; its time is quadratic in the number of
            positions.
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
    width: int = Field(default=128, ge=2, le=MOST_CHANNELS)
    decoder_width: int | None = Field(default=None, ge=2, le=MOST_CHANNELS)
    blocks: Blocks = 2
    decoder_blocks: Blocks | None = None
    hidden_width: Channels = 32
    multipliers: tuple[Annotated[int, Field(ge=1, le=64)], ...] | None = None
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
        """Return the values; the fields for vqgan only are left out elsewhere, so that older runs stay the same."""
        tree: dict[str, Any] = write(self)
        if self.architecture != "vqgan":
            tree = {key: value for key, value in tree.items() if key not in ("multipliers", "attention")}
        return tree

    @property
    def depth(self) -> int:
        """Number of halvings, log2 of the stride."""
        return self.stride.bit_length() - 1

    @property
    def encoder_halo(self) -> int | None:
        """Number of latent positions around a tile that can influence it in the encoder; None for vqgan.

        The normalisation and the attention of vqgan see the whole picture. Strided 4x4 convolutions reach one position
        of the grid before them, 3x3 convolutions one of their own.
        """
        strides = [1 << k for k in range(1, self.depth + 1)]
        downs = sum(stride // 2 for stride in strides)
        match self.architecture:
            case "shallow":
                pixels = downs + (1 + self.blocks) * self.stride
            case "residual":
                pixels = 1 + downs + 2 * sum(strides) + 2 * self.blocks * self.stride
            case "compact":
                coarse = [stride for stride in strides if stride > UNSHUFFLE]
                pixels = UNSHUFFLE + sum(stride // 2 for stride in coarse) + 2 * self.blocks * self.stride
            case "vqgan":
                return None
        return -(-pixels // self.stride)

    @property
    def decoder_halo(self) -> int | None:
        """Number of latent positions around a tile that can influence it in the decoder; None for vqgan.

        It is followed from the pixels to the latent: a transposed 4x4 convolution halves it and adds one, a pixel
        shuffle halves it, a 3x3 convolution adds one.
        """
        blocks = self.blocks if self.decoder_blocks is None else self.decoder_blocks
        match self.architecture:
            case "shallow":
                return 1 + blocks + 1
            case "residual":
                reach = 1
                for _ in range(self.depth):
                    reach = (reach + 2) // 2 + 2
            case "compact":
                reach = 1
                for _ in range(self.depth - (UNSHUFFLE.bit_length() - 1)):
                    reach = (reach + 3) // 2 + 1
            case "vqgan":
                return None
        return reach + 2 * blocks + 1


def stage_widths(width: int, depth: int) -> list[int]:
    """Return the channels of the residual architecture at strides 1, 2, 4, ...: a quarter, a half, the full width."""
    return [max(1, width // 4), max(1, width // 2), *([width] * (depth - 1))]


def grid_widths(config: AutoencoderConfig, width: int) -> list[int]:
    """Return the channels of the vqgan architecture at strides 1, 2, 4, ..., r, with `width` channels at stride 1."""
    multipliers = config.multipliers or tuple(min(4, 2**i) for i in range(config.depth + 1))
    return [width * multiplier for multiplier in multipliers]
