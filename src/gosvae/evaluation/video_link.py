"""A video over a simulated link that loses datagrams, with the parts of the real sender and the real receiver.

There is no clock but that of the frames, so that the same seed gives the same losses and the same pictures.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.errors import ConfigError
from gosvae.experts.base import Expert
from gosvae.packets.inlet import Inlet
from gosvae.packets.reassembly import ReceivedFrame
from gosvae.protocol.feedback import Outcomes
from gosvae.protocol.frames import Perceived
from gosvae.receiver.perception import Perception
from gosvae.sender.sender import UdpTarget
from gosvae.sender.sequence_transmitter import SequenceTransmitter
from gosvae.sender.udp import UdpSender
from gosvae.tensors import ImageArray

_STREAM_ID = 1
_ROUNDING_S = 1e-6
"""Number of seconds by which rounding may delay a feedback that arrives with the next frame."""


@dataclass(frozen=True)
class LinkConditions:
    """A link that loses datagrams in both directions at random.

    Attributes:
        loss: probability that a datagram is lost.
        round_trip_ms: time from sending a frame to the arrival of its feedback, without losses.
        slices: number of interleaved slices of a frame, each in a packet of its own.
        seed: seed of the losses, which are the same for every codec.
        repeats: number of times that every clip is sent, each time with other losses.

    Raises:
        ConfigError: a value outside its range.
    """

    loss: float
    round_trip_ms: float = 100.0
    slices: int = 1
    seed: int = 0
    repeats: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.loss < 1:
            raise ConfigError(f"a loss of {self.loss:g}: expected a probability from 0 to below 1", argument="loss")
        if not self.round_trip_ms >= 0:
            raise ConfigError(f"a round trip of {self.round_trip_ms:g} ms: expected 0 or more")
        if self.repeats < 1:
            raise ConfigError(f"every clip is sent {self.repeats} times: expected at least 1", argument="repeats")
        if self.slices < 1:
            raise ConfigError(f"{self.slices} slices: expected at least 1", argument="slices")

    def __str__(self) -> str:
        slices = f", {self.slices} slices a frame" if self.slices > 1 else ""
        repeats = f", every clip sent {self.repeats} times" if self.repeats > 1 else ""
        return (
            f"datagrams over a link that loses {100 * self.loss:g} % of them, round trip {self.round_trip_ms:g} ms"
            f"{slices}{repeats}"
        )


@dataclass(frozen=True)
class Shown:
    """What a frame of the camera comes to.

    Attributes:
        link_bytes: number of bytes of its datagrams, without the headers of IP and UDP.
        perceived: what the receiver has made of it; None if it shows an earlier frame.
        number: number of the frame whose map the receiver shows.
    """

    link_bytes: int
    perceived: Perceived | None
    number: int


class SimulatedLink:
    """Sender and receiver of one video, and the link between them.

    Args:
        codec: video codec.
        expert: expert of the receiver.
        conditions: losses and delay.
        frames_per_second: rate of the frames.
        generator: source of the losses.
    """

    def __init__(
        self,
        codec: SequenceCodec,
        expert: Expert,
        conditions: LinkConditions,
        frames_per_second: float,
        generator: np.random.Generator,
    ) -> None:
        self._conditions, self._rate, self._generator = conditions, frames_per_second, generator
        codec = codec.sliced(conditions.slices)
        self._transmitter = SequenceTransmitter(codec, fps=frames_per_second, lossy=True)
        self._sender = UdpSender.offline(stream_id=_STREAM_ID, first_frame=0, slices_per_packet=1)
        UdpTarget(self._sender).on_outcome = self._transmitter.hear
        self._perception = Perception(codec.codec, expert, sequences=codec)
        self._inlet, self._outcomes = Inlet(), Outcomes()
        self._feedback: list[tuple[float, int, bytes]] = []
        self._sent, self._newest = 0, 0

    def send(self, frame_uint8_HW3: ImageArray) -> Shown:
        """Send the next frame and return what the receiver shows before the one after it would arrive."""
        number, now_s = self._sent, self._sent / self._rate
        self._sent += 1
        while self._feedback and self._feedback[0][0] <= now_s + _ROUNDING_S:
            self._sender.datagram_received(heapq.heappop(self._feedback)[2], ())
        stream = self._transmitter.code(frame_uint8_HW3, now_s)
        assert stream is not None  # without a rate every frame is sent
        datagrams = self._sender.datagrams_of(stream)
        arrival_s = now_s + self._conditions.round_trip_ms / 2000.0
        done: list[ReceivedFrame] = []
        for data in datagrams:
            if not self._is_lost():
                done += self._inlet.add(data, arrival_s)
        perceived = self._take(done, arrival_s, number)
        due_s = self._inlet.next_deadline_s
        if due_s is not None and due_s < arrival_s + 1.0 / self._rate:
            perceived = self._take(self._inlet.expire(due_s), due_s, number) or perceived
        return Shown(sum(map(len, datagrams)), perceived, self._newest)

    def _take(self, frames: list[ReceivedFrame], now_s: float, number: int) -> Perceived | None:
        """Decode frames, tell the sender, and return what was made of a frame by its number."""
        found = None
        for frame in frames:
            (result,) = self._perception([(frame.stream, bool(frame.missing))], ["camera"])
            usable = isinstance(result, Perceived) and result.concealed_HW is None
            self._outcomes.add(frame.frame, decoded=usable)
            if not self._is_lost():
                feedback = self._outcomes.feedback(_STREAM_ID, compact=True).pack()
                arrival_s = now_s + self._conditions.round_trip_ms / 2000.0
                heapq.heappush(self._feedback, (arrival_s, len(self._feedback) + number, feedback))
            if isinstance(result, Perceived) and frame.frame == number:
                found, self._newest = result, number
        return found

    def _is_lost(self) -> bool:
        return bool(self._generator.random() < self._conditions.loss)
