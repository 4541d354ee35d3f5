"""The quantizer contract: a latent becomes indices and the vectors they stand for.

Axis legend: B images, D latent channels, h and w latent positions, K codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Quantized:
    """What a quantizer made of a latent.

    Attributes:
        z_q_BDhw: quantised latent; gradients pass straight through to the encoder.
        indices_Bhw: int64 code numbers in [0, K).
        terms: unweighted loss terms, scalars (`codebook`, `commitment`); empty where the quantizer has none.
    """

    z_q_BDhw: Tensor
    indices_Bhw: Tensor
    terms: dict[str, Tensor]


class Quantizer(nn.Module, ABC):
    """Maps latents to indices and back."""

    codebook_size: int
    """K, the number of different indices."""
    code_dim: int
    """D, the channels of the latent."""

    @abstractmethod
    def forward(self, z_BDhw: Tensor) -> Quantized:
        """Quantise a latent (B, D, h, w).

        Raises:
            ShapeError: the latent does not have `code_dim` channels.
        """

    @abstractmethod
    def encode(self, z_BDhw: Tensor) -> Tensor:
        """Indices (B, h, w) alone, without gradients or loss terms."""

    @abstractmethod
    def lookup(self, indices_Bhw: Tensor) -> Tensor:
        """Vectors (B, D, h, w) of the indices."""


@dataclass(frozen=True)
class CodebookUsage:
    """How evenly a codebook is used.

    Attributes:
        perplexity: 2 to the entropy of the index frequencies, between 1 and K.
        utilisation: share of the K codes that occur, between 0 and 1.
        entropy_bits: zero-order entropy in bits per index.
    """

    perplexity: float
    utilisation: float
    entropy_bits: float


def codebook_usage(indices: Tensor, codebook_size: int) -> CodebookUsage:
    """Usage of a codebook of `codebook_size` codes by int64 indices of any shape."""
    counts_K = torch.bincount(indices.reshape(-1).cpu(), minlength=codebook_size).double()
    probabilities_K = counts_K / counts_K.sum()
    nonzero = probabilities_K[probabilities_K > 0]
    entropy_bits = float(-(nonzero * nonzero.log2()).sum())
    return CodebookUsage(
        perplexity=2.0**entropy_bits,
        utilisation=float((counts_K > 0).double().mean()),
        entropy_bits=entropy_bits,
    )
