"""Contract of a quantizer: it maps a latent to indices, and indices to vectors.

Axis legend: B images, D latent channels, h and w latent positions, K codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Quantized:
    """Result of a quantizer.

    Attributes:
        z_q_BDhw: quantised latent; gradients pass straight through to the encoder.
        indices_Bhw: int64 indices in [0, K).
        terms: unweighted loss terms, scalars (`codebook`, `commitment`); empty if the quantizer has none.
    """

    z_q_BDhw: Tensor
    indices_Bhw: Tensor
    terms: dict[str, Tensor]


class Quantizer(nn.Module, ABC):
    """Base of all quantizers, which map latents to indices and back."""

    codebook_size: int
    """Number of different indices, K."""
    code_dim: int
    """Number of channels of the latent, D."""

    @abstractmethod
    def forward(self, z_BDhw: Tensor) -> Quantized:
        """Quantise a latent (B, D, h, w).

        Raises:
            ShapeError: the latent does not have `code_dim` channels.
        """

    @abstractmethod
    def encode(self, z_BDhw: Tensor) -> Tensor:
        """Return the indices (B, h, w) of a latent, without gradients or loss terms."""

    @abstractmethod
    def lookup(self, indices_Bhw: Tensor) -> Tensor:
        """Return the vectors (B, D, h, w) of indices (B, h, w)."""


@dataclass(frozen=True)
class CodebookUsage:
    """Statistics of the use of a codebook.

    Attributes:
        perplexity: 2 to the power of the entropy of the indices, between 1 and K.
        utilisation: share of the K codes that occur, between 0 and 1.
        entropy_bits: zero-order entropy in bits per index.
    """

    perplexity: float
    utilisation: float
    entropy_bits: float


def codebook_usage(indices: Tensor, codebook_size: int) -> CodebookUsage:
    """Return the use of a codebook of `codebook_size` codes by int64 indices of any shape."""
    counts_K = torch.bincount(indices.reshape(-1).cpu(), minlength=codebook_size).double()
    probabilities_K = counts_K / counts_K.sum()
    nonzero = probabilities_K[probabilities_K > 0]
    entropy_bits = float(-(nonzero * nonzero.log2()).sum())
    return CodebookUsage(
        perplexity=2.0**entropy_bits,
        utilisation=float((counts_K > 0).double().mean()),
        entropy_bits=entropy_bits,
    )
