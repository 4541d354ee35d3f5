"""The channel contract: packets in, what arrives of them out, every chance drawn from the given generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from gosvae.config import Config

Probability = Annotated[float, Field(ge=0, le=1)]
"""From 0 to 1, both included."""


@dataclass(frozen=True)
class Delivery:
    """What a receiver has of the packets that were sent, and what it knows of the damage.

    The three tuples are as long as the list that was sent, in its order.

    Attributes:
        packets: the bytes that arrived, as many as were sent; None for a packet that was lost.
        erasures: for each packet a mask of its length, most significant bit first as in the packet: 1 where the
            receiver knows that the bit is erased (it reads as 0). All 0 where the channel hides its errors, empty for
            a packet that was lost.
        damaged: whether the receiver knows that the packet is not what was sent: a bit is erased, or a checksum of
            the channel's own code does not agree. False for a packet that was lost. A packet that is not marked may
            be damaged all the same: only a checksum inside it tells.

    Raises:
        ValueError: tuples or masks of different lengths: a defect of the channel.
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
        """The packets that were not lost, in order."""
        return tuple(packet for packet in self.packets if packet is not None)

    @property
    def lost(self) -> tuple[int, ...]:
        """Numbers, from 0, of the packets that were lost."""
        return tuple(number for number, packet in enumerate(self.packets) if packet is None)


def delivery(
    packets: Sequence[bytes | None], *, erasures: Sequence[bytes] | None = None, damaged: Sequence[bool] | None = None
) -> Delivery:
    """A delivery in which nothing is known to be erased or damaged unless it is given."""
    masks = [bytes(len(packet or b"")) for packet in packets] if erasures is None else erasures
    marks = [any(mask) for mask in masks] if damaged is None else damaged
    return Delivery(tuple(packets), tuple(masks), tuple(marks))


class Channel(Config, ABC):
    """A channel: its fields are what a specification such as `packet-loss p=0.1` may set, and calling it sends packets.

    A channel keeps no state: each call begins anew, and the same packets with a generator in the same state arrive in
    the same way. It changes, erases or loses what is sent, but it never changes the length of a packet, invents,
    repeats or reorders one. An empty packet is a packet too.

    `name` is how specifications begin; `usage` lists the keys in one line.
    """

    name: ClassVar[str]
    usage: ClassVar[str]

    @property
    def spec(self) -> str:
        """The specification that `load_channel` makes this channel from, every value written out."""
        values = self.model_dump(exclude_none=True)
        return " ".join([self.name, *(f"{key}={value}" for key, value in values.items())])

    @abstractmethod
    def __call__(self, packets: Sequence[bytes], generator: torch.Generator) -> Delivery:
        """Send packets.

        Args:
            packets: any number of any length, 0 too.
            generator: a CPU generator; the call moves it on.

        Raises:
            MissingDependencyError: the channel needs a package that is not installed.
        """
