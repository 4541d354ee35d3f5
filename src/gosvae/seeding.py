"""Seeds and generators, derived from a path of integers and words and never from global state."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(*path: int | str) -> int:
    """Return a 63-bit seed from a path such as `(seed, "augment", epoch, index)`; it is the same on every machine."""
    digest = hashlib.sha256("/".join(str(part) for part in path).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def torch_generator(*path: int | str) -> torch.Generator:
    """Return a CPU generator of PyTorch, seeded by the path."""
    return torch.Generator().manual_seed(derive_seed(*path))


def numpy_generator(*path: int | str) -> np.random.Generator:
    """Return a generator of NumPy, seeded by the path."""
    return np.random.Generator(np.random.PCG64(derive_seed(*path)))


def seed_everything(seed: int) -> None:
    """Seed the global generators, for code that takes no generator (weight initialisation, dropout)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
