"""Parts of a kind of trained codec: a transform, a latent coder, and the latent between them.

`TrainedCodec` composes the two, as CompressAI composes a transform with a `LatentCodec`.

Axis legend: B pictures, D latent channels, h and w latent positions, H and W pixels. A latent is a grid (h, w) of
indices or (D, h, w) of channels, as its kind has it; both are written `hw` here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gosvae.codecs.tiling import WHOLE_PIXELS
from gosvae.nn.pyramid import NO_MARGINS, Margins

SymbolArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Latent:
    """A picture between the networks: the integers in a stream, and the values that a decoder needs to read them.

    Attributes:
        symbols: int64 (h, w) or (D, h, w); -1 at positions that are not known.
        height, width: size of the picture in pixels.
        setting: rate at which the picture was coded: level of a variable-rate codec, step of an autoencoder; 0 for
            kinds that have one rate.
        known_hw: mask, bool (h, w), of the positions whose slice is intact; None if all slices are.
        damaged: numbers, from 0, of the slices that are lost.
        seed: seed of decoders that draw at random: SHA-256 of the payload, in hexadecimal.
    """

    symbols: SymbolArray
    height: int
    width: int
    setting: int = 0
    known_hw: Mask | None = None
    damaged: tuple[int, ...] = ()
    seed: str = ""

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Numbers of rows and columns of latent positions."""
        return self.symbols.shape[-2], self.symbols.shape[-1]


class Transform(ABC):
    """Networks of a kind, from pictures to latents and from symbols to pictures.

    Attributes:
        device: device of the networks.
        stride: number of pixels per latent position on each axis.
        encoder_halo, halo: number of latent positions around a tile that can influence it, in the encoder and in the
            decoder; None for networks that see the whole picture.
        whole_pixels: size of the largest picture, in pixels, that a network without a halo takes.
        batch_pixels: largest number of pixels that go through the decoder together, which bounds the memory of batches.
    """

    device: torch.device
    stride: int
    encoder_halo: int | None
    halo: int | None
    whole_pixels: int = WHOLE_PIXELS
    batch_pixels: int = 2**21

    @abstractmethod
    def analyse(self, x_13HW: Tensor) -> Tensor:
        """Return the latent (1, h, w) or (1, D, h, w), before any rate, of a picture in [0, 1].

        The sides of the picture are multiples of the stride.
        """

    @abstractmethod
    def synthesise(self, symbols_Bhw: Tensor, latents: Sequence[Latent], margins: Margins = NO_MARGINS) -> Tensor:
        """Return pictures (B, 3, H, W), clamped to [0, 1], of symbols.

        Args:
            symbols_Bhw: symbols of all the latents, or of the same tile of each with its halo.
            latents: the latents that the symbols belong to, for their settings and seeds.
            margins: numbers of latent positions of the halo at each edge, which the pictures leave out.
        """


class LatentCoder(ABC):
    """Coder of latents to symbols, and of symbols to the payloads of slices and back.

    Attributes:
        marks: marks of the weights (`EntropyModel.mark`) of all entropy models that are read, by their ids.
        sliceable: whether a stream may have several slices.
        layered: whether a stream may have a detail layer, which the coder does not read.
    """

    marks: Mapping[int, bytes]
    sliceable: bool
    layered: bool = False

    @abstractmethod
    def quantise(self, latent_1hw: Tensor, setting: int) -> SymbolArray:
        """Return the symbols of a latent at a setting."""

    @abstractmethod
    def encode(self, parts: Sequence[SymbolArray], setting: int) -> tuple[int, list[bytes]]:
        """Return the id of the entropy model and the payloads of slices, one for each of these parts of the symbols.

        Raises:
            BitstreamError: a decoder would not accept the symbols.
        """

    @abstractmethod
    def least_bytes(self, grid_hw: tuple[int, int]) -> int:
        """Return a lower bound of the bytes of payload of a grid; a stream with fewer bytes is refused unread."""

    @abstractmethod
    def decode(
        self, model_id: int, payloads: Sequence[bytes], shapes: Sequence[tuple[int, int]]
    ) -> tuple[list[SymbolArray], int]:
        """Return the symbols of slices and the setting that all of them name.

        Args:
            model_id: id of the entropy model.
            payloads: payload of each slice, at least one.
            shapes: numbers of rows and columns of the positions of each slice.

        Raises:
            BitstreamError: no encoder makes one of these payloads, or slices have different settings.
        """

    @abstractmethod
    def conceal(self, symbols: SymbolArray, known_hw: Mask) -> SymbolArray:
        """Return the symbols for the transform if some positions are not known."""
