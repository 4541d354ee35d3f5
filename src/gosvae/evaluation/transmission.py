"""Transmission over a simulated link: packets, repair packets, a channel, and the picture at the receiver.

All codecs are treated alike. Streams of a loss-tolerant codec are cut between their slices, and lost slices are
concealed. Files of other codecs are cut into as many pieces, with the same packet headers and repair packets. If a
piece is missing, the decoder gets the pieces before it: it shows the first scans or rows of a JPEG, and nothing of most
other formats, for which the picture is mid-grey.

Axis legend: H and W pixels.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import ImageFile

from gosvae.bitstream import MAX_SLICES, SHORT_FINGERPRINT_BYTES, Header, pack_slices, salvage, unpack_slices
from gosvae.channels.base import Channel
from gosvae.codecs.base import ImageCodec, LossTolerantCodec, RateControlledCodec
from gosvae.errors import BitstreamError, ConfigError, RateError
from gosvae.packets import (
    DEFAULT_MTU_BYTES,
    REPAIR_OVERHEAD_BYTES,
    Reassembler,
    ReceivedFrame,
    Recovery,
    packetise,
    protect,
)
from gosvae.tensors import ImageArray

GREY = 128
"""Value of all pixels of a picture that cannot be decoded."""
RAW_MODEL_ID = 255
"""Entropy model id in packets of files that are not gosvae streams."""
_MOST_SEARCHES = 16
_FILLED = 0.98
"""Share of a budget at which the search for a stream ends."""
_TRUNCATED_LOCK = threading.Lock()

Outcome = Literal["whole", "concealed", "truncated", "lost"]
"""Outcome of a transmission: every byte arrived; lost slices were concealed; the decoder got only the beginning of the
file; or nothing could be decoded."""


@dataclass(frozen=True)
class LinkSettings:
    """Settings of the simulated link.

    Attributes:
        channel: channel that loses or damages packets.
        overhead: number of repair packets for each packet, as in `protect`; 0 sends none.
        packets: number of packets of an image; fewer if a stream has fewer slices, more if the MTU requires it.
        mtu_bytes: length in bytes of the longest datagram.
        seed: seed of the channel; image n meets the same random numbers with every codec.

    Raises:
        ConfigError: an impossible value.
    """

    channel: Channel
    overhead: float = 0.0
    packets: int = 8
    mtu_bytes: int = DEFAULT_MTU_BYTES
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.packets <= MAX_SLICES or not 0 <= self.overhead <= MAX_SLICES:
            raise ConfigError(
                f"{self.packets} packets with an overhead of {self.overhead} repair packets each: expected "
                f"1..{MAX_SLICES} and 0..{MAX_SLICES}"
            )

    @property
    def description(self) -> str:
        """Text for captions: channel, packets, overhead and seed."""
        fec = f"FEC {100 * self.overhead:g} %" if self.overhead else "no FEC"
        return f"{self.channel.spec}, {self.packets} packets an image, {fec}, seed {self.seed}"


@dataclass(frozen=True)
class Sent:
    """An image as it is sent.

    Attributes:
        data: stream or file.
        datagrams: packets and repair packets.
        over_budget: whether even the smallest stream of the codec is above the budget.
    """

    data: bytes
    datagrams: tuple[bytes, ...]
    over_budget: bool = False

    @property
    def air_bytes(self) -> int:
        """Number of bytes of all datagrams, without the headers of IP and UDP."""
        return sum(map(len, self.datagrams))


@dataclass(frozen=True)
class Received:
    """The picture at the receiver.

    Attributes:
        image_uint8_HW3: picture as decoded or concealed, or mid-grey.
        outcome: outcome of the transmission.
        concealed_share: share of the pixels that are concealed, in [0, 1]; 1 if nothing could be decoded.
    """

    image_uint8_HW3: ImageArray
    outcome: Outcome
    concealed_share: float


def datagrams_of(codec: ImageCodec, data: bytes, size_hw: tuple[int, int], link: LinkSettings) -> tuple[bytes, ...]:
    """Return the datagrams of a stream or file; errors as `packetise` and `protect`."""
    stream, shared = data, 1
    if isinstance(codec, LossTolerantCodec):
        shared = math.ceil(len(unpack_slices(data).slices) / link.packets)
    else:
        stream = raw_stream(data, size_hw, link.packets)
    room = link.mtu_bytes - (REPAIR_OVERHEAD_BYTES if link.overhead else 0)
    packets = packetise(stream, stream_id=0, frame=0, mtu_bytes=room, slices_per_packet=shared)
    return tuple(protect(packets, overhead=link.overhead, mtu_bytes=link.mtu_bytes))


def raw_stream(data: bytes, size_hw: tuple[int, int], pieces: int) -> bytes:
    """Return a file of any kind as a stream of pieces of nearly equal length, so that it can be sent like a stream."""
    pieces = max(1, min(pieces, len(data)))
    edges = [n * len(data) // pieces for n in range(pieces + 1)]
    slices = [data[edges[n] : edges[n + 1]] for n in range(pieces)]
    return pack_slices(Header(bytes(SHORT_FINGERPRINT_BYTES), *size_hw, RAW_MODEL_ID), slices)


def transmit(datagrams: tuple[bytes, ...], channel: Channel, generator: torch.Generator) -> ReceivedFrame | None:
    """Send datagrams over a channel; return what the receiver has of the frame, None if no packet arrived intact."""
    recovery, reassembler = Recovery(), Reassembler()
    frames: list[ReceivedFrame] = []
    for datagram in channel(datagrams, generator).arrived:
        for packet in recovery.add(datagram):
            frames += reassembler.add(packet)
    frames += reassembler.flush()
    return frames[0] if frames else None


def receive(codec: ImageCodec, frame: ReceivedFrame | None, size_hw: tuple[int, int]) -> Received:
    """Return the picture of a delivery."""
    if frame is None:
        return _grey(size_hw)
    if isinstance(codec, LossTolerantCodec):
        shown = codec.decompress_damaged(frame.stream)
        share = float(shown.concealed_HW.mean())
        return Received(shown.image_uint8_HW3, "concealed" if shown.damaged else "whole", share)
    slices = salvage(frame.stream).slices
    if not frame.missing:
        return Received(codec.decompress(b"".join(piece or b"" for piece in slices)), "whole", 0.0)
    beginning = b"".join(piece or b"" for piece in slices[: frame.missing[0]])
    image = _of_beginning(codec, beginning)
    if image is None or image.shape[:2] != size_hw:
        return _grey(size_hw)
    return Received(image, "truncated", 0.0)


def _grey(size_hw: tuple[int, int]) -> Received:
    return Received(np.full((*size_hw, 3), GREY, np.uint8), "lost", 1.0)


def _of_beginning(codec: ImageCodec, data: bytes) -> ImageArray | None:
    """Return the picture that a decoder makes of the beginning of a file; None if it makes none."""
    with _truncated_files():
        try:
            return codec.decompress(data)
        except BitstreamError:
            return None


@contextmanager
def _truncated_files() -> Iterator[None]:
    """Let Pillow decode truncated files, by a switch that is global to Pillow."""
    with _TRUNCATED_LOCK:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def send(codec: ImageCodec, image_uint8_HW3: ImageArray, link: LinkSettings, budget_bytes: int | None = None) -> Sent:
    """Compress an image and cut the stream into datagrams.

    Args:
        codec: codec of the image.
        image_uint8_HW3: image to send.
        link: settings of the link.
        budget_bytes: largest number of bytes of all datagrams together, for which the codec's rate is searched; None
            takes the codec's own rate.
    """
    size_hw = (image_uint8_HW3.shape[0], image_uint8_HW3.shape[1])
    if budget_bytes is None:
        data = codec.compress(image_uint8_HW3)
        return Sent(data, datagrams_of(codec, data, size_hw, link))
    assert isinstance(codec, RateControlledCodec)  # checked by the callers
    # Headers and repair packets grow with the stream, so its own budget is searched: from above until the datagrams
    # fit, then between the streams on both sides of the budget until they fill it.
    allowed, too_large, best = budget_bytes, budget_bytes + 1, None
    for _ in range(_MOST_SEARCHES):
        try:
            data = codec.compress_to_budget(image_uint8_HW3, allowed)
        except RateError:
            break
        sent = Sent(data, datagrams_of(codec, data, size_hw, link))
        excess = sent.air_bytes - budget_bytes
        if excess > 0:
            too_large = min(too_large, len(data))
            step = too_large - math.floor(excess / (1 + link.overhead))
            allowed = min(step, too_large - 1) if best is None else (len(best.data) + too_large) // 2
        else:
            best = sent if best is None or sent.air_bytes > best.air_bytes else best
            between = (allowed + too_large) // 2
            if best.air_bytes >= _FILLED * budget_bytes or between == allowed:
                break
            allowed = between
        if allowed < 1:
            break
    if best is not None:
        return best
    data = codec.compress_smallest(image_uint8_HW3)
    datagrams = datagrams_of(codec, data, size_hw, link)
    return Sent(data, datagrams, over_budget=sum(map(len, datagrams)) > budget_bytes)
