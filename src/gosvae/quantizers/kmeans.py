"""K-means of Lloyd, for the start of a codebook.

Axis legend: D latent channels, N vectors, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gosvae.quantizers.batch_statistics import count_codes, draw_vectors, sum_over_devices
from gosvae.quantizers.vq import nearest_codes


def assigned(z_ND: Tensor, indices_N: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Return, over all devices, the number (K,) of vectors that chose each code, and their sum (K, D)."""
    counts_K = count_codes(indices_N, codebook_size)
    sums_KD = z_ND.new_zeros(codebook_size, z_ND.shape[1])
    sums_KD.scatter_add_(0, indices_N.unsqueeze(1).expand_as(z_ND), z_ND)
    return counts_K, sum_over_devices(sums_KD)


@torch.no_grad()
def kmeans(z_ND: Tensor, codebook_size: int, iterations: int, *path: int | str) -> tuple[Tensor, Tensor]:
    """Return centres (K, D) after `iterations` (1 or more), and the number (K,) of vectors that chose each of them.

    The first centres are random vectors, whose draw depends on `path` alone (see `gosvae.seeding`). A centre that no
    vector chose stays where it is.
    """
    centres_KD = draw_vectors(z_ND, codebook_size, *path)
    for _ in range(iterations):
        counts_K, sums_KD = assigned(z_ND, nearest_codes(z_ND, centres_KD), codebook_size)
        means_KD = sums_KD / counts_K.clamp(min=1).unsqueeze(1)
        centres_KD = torch.where(counts_K.unsqueeze(1) > 0, means_KD, centres_KD)
    return centres_KD, counts_K
