"""Contract of channels: they take packets and return a `Delivery`; all randomness comes from the given generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from gosvae.config import Config

Probability = Annotated[float, Field(ge=0, le=1)]
"""Probability, from 0 to 1, both included."""


@dataclass(frozen=True)
class Delivery:
    """Packets as a receiver gets them, with the damage that it knows of.

    The three tuples are as long as the list that was sent, in its order.

    Attributes:
        packets: bytes that arrived, as many as were sent; None for a packet that was lost.
        erasures: masks, one for each packet and of its length, most significant bit first as in the packet. A 1 means
            that the receiver knows that the bit is erased (it reads as 0). A mask is all 0 if the channel hides its
            errors, and empty for a packet that was lost.
        damaged: marks of the packets that the receiver knows to be damaged, because a bit is erased or a checksum of
            the channel's own code does not agree; False for a packet that was lost. A packet without a mark may also
            be damaged, which only a checksum inside it can tell.

    Raises:
        ValueError: tuples or masks have different lengths, which is a defect of the channel.
    """

    packets: tuple[bytes | None, ...]
    erasures: tuple[bytes, ...]
    damaged: tuple[bool, ...]

    def __post_init__(self) -> None:
        lengths = [len(packet or b"") for packet in self.packets]
        if len(self.damaged) != len(lengths) or [len(mask) for mask in self.erasures] != lengths:
            raise ValueError(f"a delivery of packets of {lengths} bytes with masks or marks of other lengths")

    @property
    def arrived(self) -> tuple[bytes, ...]:
        """Packets that were not lost, in order."""
        return tuple(packet for packet in self.packets if packet is not None)

    @property
    def lost(self) -> tuple[int, ...]:
        """Numbers, from 0, of the packets that were lost."""
        return tuple(number for number, packet in enumerate(self.packets) if packet is None)


def delivery(
    packets: Sequence[bytes | None], *, erasures: Sequence[bytes] | None = None, damaged: Sequence[bool] | None = None
) -> Delivery:
    """Return a delivery; without `erasures` and `damaged` the receiver knows of no damage."""
    masks = [bytes(len(packet or b"")) for packet in packets] if erasures is None else erasures
    marks = [any(mask) for mask in masks] if damaged is None else damaged
    return Delivery(tuple(packets), tuple(masks), tuple(marks))


class Channel(Config, ABC):
    """Base of all channels; a specification such as `packet-loss p=0.1` sets the fields, and a call sends packets.

    A channel keeps no state between calls: the same packets with a generator in the same state arrive in the same way.
    It changes, erases or loses packets, but it never changes the length of a packet, and never invents, repeats or
    reorders one. Packets may be empty.

    Attributes:
        name: first word of specifications.
        usage: the keys of specifications, in one line.
    """

    name: ClassVar[str]
    usage: ClassVar[str]

    @property
    def spec(self) -> str:
        """Specification from which `load_channel` makes this channel, with all values."""
        values = self.model_dump(exclude_none=True)
        return " ".join([self.name, *(f"{key}={value}" for key, value in values.items())])

    @abstractmethod
    def __call__(self, packets: Sequence[bytes], generator: torch.Generator) -> Delivery:
        """Send packets and return their delivery.

        Args:
            packets: packets, of any number and length including 0.
            generator: CPU generator, whose state the call advances.

        Raises:
            MissingDependencyError: the channel needs a package that is not installed.
        """
