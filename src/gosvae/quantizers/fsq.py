"""Finite scalar quantisation (Mentzer et al. 2023, "VQ-VAE Made Simple"): rounding instead of a codebook.

Axis legend: B images, D latent channels, h and w latent positions, K codes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gosvae.errors import ConfigError, ShapeError
from gosvae.nn.straight_through import straight_through
from gosvae.quantizers.base import Quantized, Quantizer
from gosvae.tensors import check_layout

MARGIN = 1e-3
"""Share by which the outermost levels are inside the bound, so that tanh can reach them."""


class FiniteScalarQuantizer(Quantizer):
    """Quantizer that bounds each of the D = len(levels) channels by tanh and rounds it to one of its levels.

    K is the product of the levels; the first channel is the fastest digit of an index. Values are in [-1, 1]. There are
    no loss terms and no weights. The gradient passes straight through the rounding, but not through the tanh.

    Raises:
        ConfigError: no levels, or fewer than 3 in a channel.
    """

    levels_1D11: Tensor
    basis_1D11: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        if not levels or min(levels) < 3:
            raise ConfigError(f"FSQ levels {levels}: expected at least one channel of at least 3 levels each")
        self.codebook_size = math.prod(levels)
        self.code_dim = len(levels)
        basis = [math.prod(levels[:channel]) for channel in range(len(levels))]
        self.register_buffer("levels_1D11", torch.tensor(levels).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("basis_1D11", torch.tensor(basis).view(1, -1, 1, 1), persistent=False)

    def _bound(self, z_BDhw: Tensor) -> Tensor:
        """Return the latent in the open interval around the levels -(L//2) ... (L-1)//2 of each channel; 0 stays 0."""
        check_layout(z_BDhw, "a latent (B, D, h, w)", axis_1=self.code_dim)
        z = z_BDhw if z_BDhw.dtype == torch.float64 else z_BDhw.float()
        levels = self.levels_1D11.to(z.dtype)
        half = (levels - 1) * (1 + MARGIN) / 2
        # An even number of levels has no middle: the interval moves by half a level.
        offset = torch.where(self.levels_1D11 % 2 == 0, 0.5, 0.0).to(z.dtype)
        return torch.tanh(z + torch.atanh(offset / half)) * half - offset

    def _indices(self, rounded_BDhw: Tensor) -> Tensor:
        digits = rounded_BDhw.detach().long() + self.levels_1D11 // 2
        return (digits * self.basis_1D11).sum(dim=1)

    def forward(self, z_BDhw: Tensor) -> Quantized:
        """Quantise a latent; there are no terms."""
        bounded_BDhw = self._bound(z_BDhw)
        rounded_BDhw = bounded_BDhw.round()
        z_q_BDhw = straight_through(bounded_BDhw, rounded_BDhw) / (self.levels_1D11 // 2)
        return Quantized(z_q_BDhw, self._indices(rounded_BDhw), {})

    @torch.no_grad()
    def encode(self, z_BDhw: Tensor) -> Tensor:
        """Return the indices (B, h, w) of a latent, without gradients."""
        return self._indices(self._bound(z_BDhw).round())

    def lookup(self, indices_Bhw: Tensor) -> Tensor:
        """Return the vectors (B, D, h, w) in [-1, 1] of int64 indices (B, h, w) in [0, K).

        Raises:
            ShapeError: the indices are not (B, h, w).
        """
        if indices_Bhw.ndim != 3:
            raise ShapeError("expected indices (B, h, w)", got=indices_Bhw.shape)
        half = self.levels_1D11 // 2
        digits_BDhw = indices_Bhw.unsqueeze(1) // self.basis_1D11 % self.levels_1D11
        return (digits_BDhw - half).float() / half
