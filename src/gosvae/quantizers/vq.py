"""Vector quantisation with a codebook learned by gradients (van den Oord et al. 2017): Eqs. 1, 2 and 4.

Axis legend: B images, D latent channels, h and w latent positions, N = B h w vectors, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.errors import ShapeError
from gosvae.nn.straight_through import straight_through
from gosvae.quantizers.base import Quantized, Quantizer
from gosvae.quantizers.batch_statistics import count_codes, draw_vectors
from gosvae.tensors import check_layout

SEARCH_BYTES = 16 * 1024 * 1024
"""Largest size in bytes of the distance matrix that a search holds at a time."""


@torch.no_grad()
def nearest_codes(z_ND: Tensor, codebook_KD: Tensor) -> Tensor:
    """Return int64 indices (N,) of the nearest codes by Euclidean distance (Eq. 1); of equal distances the first.

    Distances are in float32 whatever the surrounding precision, so that mixed precision does not change the indices of
    a latent. Vectors are searched in chunks, so that K = 12000 codes need no N x K matrix.
    """
    with torch.autocast(z_ND.device.type, enabled=False):
        z_ND, codebook_KD = z_ND.detach().float(), codebook_KD.detach().float()
        # |z|^2 is the same for every code: argmin |z - e|^2 = argmin |e|^2 - 2 z.e
        squares_1K = codebook_KD.square().sum(dim=1).unsqueeze(0)
        codes_DK = codebook_KD.t()
        chunk = max(1, SEARCH_BYTES // (4 * codebook_KD.shape[0]))
        found = [torch.addmm(squares_1K, z, codes_DK, alpha=-2.0).argmin(dim=1) for z in torch.split(z_ND, chunk)]
        return torch.cat(found)


def to_vectors(z_BDhw: Tensor) -> Tensor:
    """Return a latent (B, D, h, w) as vectors (N, D)."""
    return z_BDhw.permute(0, 2, 3, 1).reshape(-1, z_BDhw.shape[1])


def search_latent(z_BDhw: Tensor, codebook_KD: Tensor) -> Tensor:
    """Return the indices (B, h, w) of the codes nearest to a latent (B, D, h, w)."""
    batch, _, height, width = z_BDhw.shape
    return nearest_codes(to_vectors(z_BDhw), codebook_KD).view(batch, height, width)


def lookup_codes(indices_Bhw: Tensor, codebook_KD: Tensor) -> Tensor:
    """Return the vectors (B, D, h, w) of int64 indices (B, h, w) in [0, K) (Eq. 2).

    Raises:
        ShapeError: the indices are not (B, h, w).
    """
    if indices_Bhw.ndim != 3:
        raise ShapeError("expected indices (B, h, w)", got=indices_Bhw.shape)
    return F.embedding(indices_Bhw, codebook_KD).permute(0, 3, 1, 2)


class VectorQuantizer(Quantizer):
    """Quantizer to the nearest code by Euclidean distance; the codebook is trained by a loss term of its own.

    The terms, unweighted, are `codebook` = ||sg[z_e] - e||^2 and `commitment` = ||z_e - sg[e]||^2, each the mean over
    all B D h w elements, as in the reference code of VQ-VAE (Eq. 4 writes the norm). The paper weighs them 1 and beta =
    0.25. The gradient of `z_q` passes straight through to the encoder.

    With `cosine`, latents and codes are scaled to unit length first (Yu et al. 2022), which suits a small `code_dim`.
    The straight-through gradient then goes to the scaled latent.

    With `revive_below` above 0, a code whose moving share of the indices falls below that fraction of the mean share is
    moved to a random latent of the batch before the batch is quantised (Dhariwal et al. 2020, Jukebox). The paper does
    not do this; without it, a short training uses only a few codes.

    `z_q` has the data type of the codebook, also under autocast.
    """

    usage_K: Tensor
    steps: Tensor

    def __init__(
        self,
        codebook_size: int,
        code_dim: int,
        *,
        cosine: bool = False,
        revive_below: float = 0.0,
        usage_decay: float = 0.98,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.code_dim = code_dim
        self.cosine = cosine
        bound = 1.0 / codebook_size
        self.codebook_KD = nn.Parameter(torch.empty(codebook_size, code_dim).uniform_(-bound, bound))
        self.revive_below, self.usage_decay, self.seed = revive_below, usage_decay, seed
        if revive_below > 0:
            self.register_buffer("usage_K", torch.ones(codebook_size))
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def codes(self) -> Tensor:
        """Return the codes (K, D) that indices stand for."""
        return F.normalize(self.codebook_KD, dim=1) if self.cosine else self.codebook_KD

    def _prepared(self, z_BDhw: Tensor) -> Tensor:
        check_layout(z_BDhw, "a latent (B, D, h, w)", axis_1=self.code_dim)
        z_BDhw = z_BDhw.to(self.codebook_KD.dtype)
        return F.normalize(z_BDhw, dim=1) if self.cosine else z_BDhw

    def forward(self, z_BDhw: Tensor) -> Quantized:
        """Quantise a latent; the terms are `codebook` and `commitment`."""
        z_BDhw = self._prepared(z_BDhw)
        revives = self.training and self.revive_below > 0
        if revives:
            self._revive(to_vectors(z_BDhw.detach()))
        codes_KD = self.codes()
        indices_Bhw = search_latent(z_BDhw, codes_KD)
        if revives:
            counts_K = count_codes(indices_Bhw.reshape(-1), self.codebook_size)
            self.usage_K.lerp_(counts_K / counts_K.mean(), 1 - self.usage_decay)
            self.steps += 1
        e_BDhw = lookup_codes(indices_Bhw, codes_KD)
        terms = {
            "codebook": F.mse_loss(e_BDhw, z_BDhw.detach()),  # Eq. 4, second term: the gradient stops at the encoder.
            "commitment": F.mse_loss(z_BDhw, e_BDhw.detach()),  # Eq. 4, third term: the gradient stops at the codes.
        }
        return Quantized(straight_through(z_BDhw, e_BDhw), indices_Bhw, terms)

    @torch.no_grad()
    def _revive(self, z_ND: Tensor) -> None:
        """Move dead codes to random latents, and give them the mean usage, so that they stay for some steps."""
        dead_K = self.usage_K < self.revive_below
        number = int(dead_K.sum())
        if number:
            self.codebook_KD[dead_K] = draw_vectors(z_ND, number, self.seed, "revive", int(self.steps))
            self.usage_K[dead_K] = 1.0

    @torch.no_grad()
    def encode(self, z_BDhw: Tensor) -> Tensor:
        """Return the indices (B, h, w) of a latent, without gradients or loss terms."""
        return search_latent(self._prepared(z_BDhw), self.codes())

    def lookup(self, indices_Bhw: Tensor) -> Tensor:
        """Return the vectors (B, D, h, w) of indices (B, h, w)."""
        return lookup_codes(indices_Bhw, self.codes())
