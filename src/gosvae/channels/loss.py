"""Channels that lose whole packets: independently, or in bursts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, model_validator

from gosvae.channels.base import Channel, Delivery, Probability, delivery


def _uniform(count: int, generator: torch.Generator) -> list[float]:
    """Return `count` random numbers in [0, 1), in double precision."""
    drawn: list[float] = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    return drawn


class PacketLoss(Channel):
    """Channel that loses every packet with probability `p`, independently of the others; the rest arrive as sent."""

    name: ClassVar[str] = "packet-loss"
    usage: ClassVar[str] = "packet-loss p=0..1: each packet is lost with probability p"

    p: Probability

    def __call__(self, packets: Sequence[bytes], generator: torch.Generator) -> Delivery:
        drawn = _uniform(len(packets), generator)
        return delivery([None if u < self.p else packet for u, packet in zip(drawn, packets, strict=True)])


class GilbertElliott(Channel):
    """Channel that loses packets in bursts: a Markov chain of two states, good (all arrive) and bad (all are lost).

    This is Gilbert's chain in the simple form that Hasslinger and Hohlfeld (2008), "The Gilbert-Elliott model for
    packet loss in real time services on the Internet", call the simple Gilbert model: Elliott's (1963) loss
    probabilities are 0 in the good state and 1 in the bad one. With P(good to bad) = a and P(bad to good) = b after
    each packet:

        burst = 1 / b             mean number of packets lost in a row, geometrically distributed
        loss  = a / (a + b)       mean share of packets lost, and the probability that the first one is

    so that b = 1 / burst and a = b * loss / (1 - loss). `burst = 1 / (1 - loss)` is independent loss; with shorter
    bursts the losses are more regular than chance. A call begins in the stationary state: for bursts that reach over
    several frames, send the packets of all of them in one call.

    Attributes:
        loss: mean share of the packets that are lost, 0..1; 1 loses every packet, whatever the burst.
        burst: mean length of a run of lost packets, 1 or more, and at least loss / (1 - loss), so that a <= 1.
    """

    name: ClassVar[str] = "gilbert-elliott"
    usage: ClassVar[str] = "gilbert-elliott loss=0..1 burst=1..: loss is the mean share lost, burst the mean run"

    loss: Probability
    burst: Annotated[float, Field(ge=1, le=1e9)]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.loss < 1 and self.loss > self.burst * (1 - self.loss) * (1 + 1e-9):
            raise ValueError(
                f"a loss of {self.loss:g} needs bursts of at least {self.loss / (1 - self.loss):.4g} packets"
            )
        return self

    def __call__(self, packets: Sequence[bytes], generator: torch.Generator) -> Delivery:
        if self.loss == 1:
            return delivery([None] * len(packets))
        to_good = 1 / self.burst
        to_bad = to_good * self.loss / (1 - self.loss)
        arriving: list[bytes | None] = []
        bad, chance = False, self.loss  # the stationary share of the bad state
        for u, packet in zip(_uniform(len(packets), generator), packets, strict=True):
            bad = u < chance
            arriving.append(None if bad else packet)
            chance = 1 - to_good if bad else to_bad
        return delivery(arriving)
