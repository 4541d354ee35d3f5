"""What quantizers that follow their batches share: sums over devices, random vectors, dead codes.

Axis legend: D latent channels, N vectors, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

from gosvae.seeding import torch_generator


def sum_over_devices(x: Tensor) -> Tensor:
    """The sum over all devices, in place; the same tensor on one device."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(x)
    return x


def count_codes(indices_N: Tensor, codebook_size: int) -> Tensor:
    """How many vectors chose each code, over all devices, float32 (K,)."""
    return sum_over_devices(torch.bincount(indices_N, minlength=codebook_size).float())


@torch.no_grad()
def draw_vectors(z_ND: Tensor, number: int, *path: int | str) -> Tensor:
    """`number` random vectors of the batch of device 0, different ones as long as there are enough.

    The draw depends on the path alone (see `gosvae.seeding`), so a resumed run draws the same.
    """
    order = torch.randperm(z_ND.shape[0], generator=torch_generator(*path))
    chosen = order[torch.arange(number) % len(order)].to(z_ND.device)
    vectors = z_ND[chosen]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(vectors, src=0)
    return vectors
