"""Statistics of batches for quantizers: sums over devices, counts of codes, random vectors.

Axis legend: D latent channels, N vectors, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

from gosvae.seeding import torch_generator


def sum_over_devices(x: Tensor) -> Tensor:
    """Sum a tensor over all devices, in place, and return it."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(x)
    return x


def count_codes(indices_N: Tensor, codebook_size: int) -> Tensor:
    """Return the number of vectors that chose each code, over all devices, float32 (K,)."""
    return sum_over_devices(torch.bincount(indices_N, minlength=codebook_size).float())


@torch.no_grad()
def draw_vectors(z_ND: Tensor, number: int, *path: int | str) -> Tensor:
    """Return `number` random vectors of the batch of device 0, all different if there are enough.

    The draw depends on the path alone (see `gosvae.seeding`), so a resumed run draws the same vectors.
    """
    order = torch.randperm(z_ND.shape[0], generator=torch_generator(*path))
    chosen = order[torch.arange(number) % len(order)].to(z_ND.device)
    vectors = z_ND[chosen]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(vectors, src=0)
    return vectors
