"""What a kind of trained codec brings to the template: a transform, a latent coder, and the latent between them.

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

SymbolArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Latent:
    """A picture between the networks: the integers that a stream holds, and how a decoder has to read them.

    Attributes:
        symbols: int64 (h, w) or (D, h, w); -1 at positions that are not known.
        height, width: size of the picture in pixels.
        setting: rate at which the picture was coded: level of a variable-rate codec, step of an autoencoder; 0 for
            kinds that have one rate.
        known_hw: bool (h, w), whether the slice that holds a position is intact; None where all of them are.
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
        """Rows and columns of latent positions."""
        return self.symbols.shape[-2], self.symbols.shape[-1]


class Transform(ABC):
    """The networks of a kind: pictures to latents, and symbols to pictures.

    Attributes:
        device: device of the networks.
        stride: pixels per latent position on each axis.
        halo: latent positions around a tile that can influence it; None for networks that see the whole picture.
        whole_pixels: size of the largest picture, in pixels, that a network without a halo takes.
        batch_pixels: pixels that go through the decoder together, at most; it bounds the memory of batches.
    """

    device: torch.device
    stride: int
    halo: int | None
    whole_pixels: int = WHOLE_PIXELS
    batch_pixels: int = 2**21

    @abstractmethod
    def analyse(self, x_13HW: Tensor) -> Tensor:
        """Return the latent (1, h, w) or (1, D, h, w), before any rate, of a picture in [0, 1].

        The sides of the picture are multiples of the stride.
        """

    @abstractmethod
    def synthesise(self, symbols_Bhw: Tensor, latents: Sequence[Latent]) -> Tensor:
        """Return pictures (B, 3, H, W), clamped to [0, 1], of symbols.

        Args:
            symbols_Bhw: symbols of all the latents, or of the same tile of each.
            latents: the latents that the symbols belong to, for their settings and seeds.
        """


class LatentCoder(ABC):
    """Latents to symbols, and symbols to the payloads of slices and back.

    Attributes:
        marks: for each entropy model that is read, by its id, the mark of its weights (`EntropyModel.mark`).
        sliceable: whether a stream may have several slices.
    """

    marks: Mapping[int, bytes]
    sliceable: bool

    @abstractmethod
    def quantise(self, latent_1hw: Tensor, setting: int) -> SymbolArray:
        """Return the symbols of a latent at a setting."""

    @abstractmethod
    def encode(self, parts: Sequence[SymbolArray], setting: int) -> tuple[int, list[bytes]]:
        """Return the id of the entropy model and the payloads of slices, which hold these parts of the symbols.

        Raises:
            BitstreamError: the symbols are none that a decoder would accept.
        """

    @abstractmethod
    def least_bytes(self, grid_hw: tuple[int, int]) -> int:
        """Return the bytes of payload that a grid takes at least: a stream with fewer is refused unread."""

    @abstractmethod
    def decode(self, model_id: int, payload: bytes, shape_hw: tuple[int, int]) -> tuple[SymbolArray, int]:
        """Return the symbols of one slice, which has `shape_hw` positions, and the setting that it names.

        Raises:
            BitstreamError: the payload is none that an encoder makes.
        """

    @abstractmethod
    def conceal(self, symbols: SymbolArray, known_hw: Mask) -> SymbolArray:
        """Return the symbols as the transform takes them, when some positions are not known."""
