"""Channels without memory that change or erase single bits (Shannon 1948; Elias 1955 for erasures)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np
import torch

from gosvae.channels.base import Channel, Delivery, Probability, delivery

_CHUNK_BYTES = 2**17


def random_mask(n_bytes: int, p: float, generator: torch.Generator) -> bytes:
    """Return bytes of independent bits that are 1 with probability `p`; at 0 all bits are 0, and at 1 all are 1."""
    mask = bytearray()
    while len(mask) < n_bytes:
        n_bits = 8 * min(_CHUNK_BYTES, n_bytes - len(mask))
        # Doubles: a float32 has only multiples of 2**-24, which are too coarse for a bit error rate of 1e-7.
        drawn = torch.rand(n_bits, generator=generator, dtype=torch.float64) < p
        mask += np.packbits(drawn.numpy()).tobytes()
    return bytes(mask)


def split(data: bytes, packets: Sequence[bytes]) -> list[bytes]:
    """Return joined bytes, cut into pieces as long as the packets."""
    edges = [0, *accumulate(map(len, packets))]
    return [data[low:high] for low, high in pairwise(edges)]


def _array(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(data, np.uint8)


class BinarySymmetric(Channel):
    """Channel that flips every bit with probability `p` without a mark; its capacity is 1 - H(p) bits per bit."""

    name: ClassVar[str] = "binary-symmetric"
    usage: ClassVar[str] = "binary-symmetric p=0..1: each bit is flipped with probability p, unseen"

    p: Probability

    def __call__(self, packets: Sequence[bytes], generator: torch.Generator) -> Delivery:
        data = b"".join(packets)
        mask = random_mask(len(data), self.p, generator)
        return delivery(split((_array(data) ^ _array(mask)).tobytes(), packets))


class BitErasure(Channel):
    """Channel that erases every bit with probability `p` and marks it; its capacity is 1 - p bits per bit."""

    name: ClassVar[str] = "bit-erasure"
    usage: ClassVar[str] = "bit-erasure p=0..1: each bit is erased with probability p, and the receiver knows which"

    p: Probability

    def __call__(self, packets: Sequence[bytes], generator: torch.Generator) -> Delivery:
        data = b"".join(packets)
        mask = random_mask(len(data), self.p, generator)
        return delivery(
            split((_array(data) & ~_array(mask)).tobytes(), packets),
            erasures=split(mask, packets),
        )
