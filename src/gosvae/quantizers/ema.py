"""Vector quantisation with a moving-average codebook (van den Oord et al. 2017, appendix A.1).

Axis legend: B images, D latent channels, h and w latent positions, N = B h w vectors, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.nn.straight_through import straight_through
from gosvae.quantizers.base import Quantized, Quantizer
from gosvae.quantizers.batch_statistics import draw_vectors
from gosvae.quantizers.kmeans import assigned, kmeans
from gosvae.quantizers.vq import lookup_codes, search_latent, to_vectors
from gosvae.tensors import check_layout


class EmaVectorQuantizer(Quantizer):
    """Quantizer to the nearest code by Euclidean distance; codes are moving averages of the vectors that chose them.

    The first training batch starts the codebook by k-means. At every training step, a code whose moving count is below
    `revive_below` times the mean count is replaced by a random vector of the batch. It starts with the mean count, so
    it stays for about `log(revive_below) / log(decay)` steps even if nothing chooses it.

    The only term, unweighted, is `commitment` = ||z_e - sg[e]||^2, the mean over all elements. The codebook changes
    only in `forward` in training mode, after the batch is quantised.

    All state is in buffers, and random draws depend on `seed` and the number of steps alone, so a resumed run continues
    bit for bit. With `torch.distributed`, counts and sums are added over the devices, and device 0 draws.
    """

    codebook_KD: Tensor
    counts_K: Tensor
    sums_KD: Tensor
    steps: Tensor

    def __init__(
        self,
        codebook_size: int,
        code_dim: int,
        *,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        kmeans_iterations: int = 5,
        revive_below: float = 0.03,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.code_dim = code_dim
        self.decay = decay
        self.epsilon = epsilon
        self.kmeans_iterations = kmeans_iterations
        self.revive_below = revive_below
        self.seed = seed
        bound = 1.0 / codebook_size
        codebook_KD = torch.empty(codebook_size, code_dim).uniform_(-bound, bound)
        self.register_buffer("codebook_KD", codebook_KD)
        self.register_buffer("counts_K", torch.ones(codebook_size))
        self.register_buffer("sums_KD", codebook_KD.clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, z_BDhw: Tensor) -> Quantized:
        """Quantise a latent; the term is `commitment`. In training mode the codebook is then updated."""
        z_BDhw = self._checked(z_BDhw)
        if self.training and self.kmeans_iterations and int(self.steps) == 0:
            self._start(to_vectors(z_BDhw.detach()))
        indices_Bhw = search_latent(z_BDhw, self.codebook_KD)
        e_BDhw = lookup_codes(indices_Bhw, self.codebook_KD)
        if self.training:
            self._update(to_vectors(z_BDhw.detach()), indices_Bhw.reshape(-1))
        terms = {"commitment": F.mse_loss(z_BDhw, e_BDhw)}
        return Quantized(straight_through(z_BDhw, e_BDhw), indices_Bhw, terms)

    @torch.no_grad()
    def encode(self, z_BDhw: Tensor) -> Tensor:
        """Return the indices (B, h, w) of a latent, without gradients; the codebook does not change."""
        return search_latent(self._checked(z_BDhw), self.codebook_KD)

    def lookup(self, indices_Bhw: Tensor) -> Tensor:
        """Return the vectors (B, D, h, w) of indices (B, h, w)."""
        return lookup_codes(indices_Bhw, self.codebook_KD)

    def _checked(self, z_BDhw: Tensor) -> Tensor:
        check_layout(z_BDhw, "a latent (B, D, h, w)", axis_1=self.code_dim)
        return z_BDhw.to(self.codebook_KD.dtype)

    @torch.no_grad()
    def _start(self, z_ND: Tensor) -> None:
        centres_KD, counts_K = kmeans(
            z_ND, self.codebook_size, self.kmeans_iterations, self.seed, "k-means", int(self.steps)
        )
        self.codebook_KD.copy_(centres_KD)
        self.counts_K.copy_(counts_K)
        self.sums_KD.copy_(centres_KD * counts_K.unsqueeze(1))

    @torch.no_grad()
    def _update(self, z_ND: Tensor, indices_N: Tensor) -> None:
        counts_K, sums_KD = assigned(z_ND, indices_N, self.codebook_size)
        self.counts_K.lerp_(counts_K, 1 - self.decay)
        self.sums_KD.lerp_(sums_KD, 1 - self.decay)
        # Laplace smoothing: no division by a count of zero.
        total = self.counts_K.sum()
        smoothed_K = (self.counts_K + self.epsilon) / (total + self.codebook_size * self.epsilon) * total
        self.codebook_KD.copy_(self.sums_KD / smoothed_K.unsqueeze(1))
        self._revive(z_ND)
        self.steps += 1

    @torch.no_grad()
    def _revive(self, z_ND: Tensor) -> None:
        mean_count = self.counts_K.mean()
        dead_K = self.counts_K < self.revive_below * mean_count
        number = int(dead_K.sum())
        if number:
            vectors = draw_vectors(z_ND, number, self.seed, "revival", int(self.steps))
            self.codebook_KD[dead_K] = vectors
            self.sums_KD[dead_K] = vectors * mean_count
            self.counts_K[dead_K] = mean_count
