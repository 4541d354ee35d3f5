"""Decoder of a sequence: it shows what the encoder coded, or says what is missing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gosvae.codecs.latent import Latent
from gosvae.codecs.sequence.coder import FrameCoder
from gosvae.codecs.sequence.format import (
    CHECK_BYTES,
    KEPT_FRAMES,
    NUMBERS,
    FrameHeader,
    SessionHeader,
    checksum,
    is_session,
)
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.video import VideoDecoder
from gosvae.entropy.temporal import Memory
from gosvae.errors import BitstreamError, MissingReferenceError
from gosvae.tensors import ImageArray


class SequenceDecoder(VideoDecoder):
    """Decoder of one sequence, see `SequenceCodec`.

    Args:
        codec: codec of the transforms.
        frames_of: function that returns the coder of a session's frames, or raises `ForeignStreamError`.

    Attributes:
        header: header of the session; None before the first key frame.
        number: number of the newest frame that was decoded; numbers begin with that of the first key frame, modulo 128.
    """

    header: SessionHeader | None
    number: int | None

    def __init__(self, codec: VariableRateCodec, frames_of: Callable[[SessionHeader], FrameCoder]) -> None:
        self.header, self.number = None, None
        self._codec, self._frames_of = codec, frames_of
        self._frames: FrameCoder | None = None
        self._known: dict[int, Memory] = {}

    def decode(self, data: bytes) -> ImageArray:
        return self._codec.reconstruct(self.decode_latent(data))

    def decode_latent(self, data: bytes) -> Latent:
        """Return the latent of a frame, for decoders that reconstruct several together; errors as `decode`."""
        key = is_session(data)
        if key:
            header, data = SessionHeader.unpack(data)
            if header != self.header or self._frames is None:
                self._frames = self._frames_of(header)
            self.header = header
        if self.header is None or self._frames is None:
            raise MissingReferenceError("a frame without its session: the sequence is decoded from a key frame on")
        frame, start = FrameHeader.unpack(data)
        end = len(data) - CHECK_BYTES
        if key:  # later frames depend on this one or on later ones
            self._known, self.number = {}, None
        number = self._full_number(frame.number)
        reference = None
        if frame.distance:
            reference = self._known.get(number - frame.distance)
            if reference is None:
                raise MissingReferenceError(
                    f"frame {number} depends on frame {number - frame.distance}, which this decoder does not have: "
                    "ask the sender for a key frame"
                )
        if end < start or checksum(data[:end], 0 if reference is None else reference.checksum) != data[end:]:
            raise BitstreamError(f"damaged: the checksum of frame {number} does not agree with it and its reference")
        memory = self._frames.decode(frame, data[start:end], reference)
        self._keep(number, memory)
        return Latent(memory.symbols.astype(np.int64), self.header.height, self.header.width, memory.level)

    def _full_number(self, short: int) -> int:
        """Return the number of a frame from its number modulo 128: the nearest one to the newest frame."""
        if self.number is None:
            return short
        ahead = (short - self.number) % NUMBERS
        number = self.number + (ahead if ahead <= NUMBERS // 2 else ahead - NUMBERS)
        return number if number >= 0 else number + NUMBERS

    def _keep(self, number: int, memory: Memory) -> None:
        self.number = number if self.number is None else max(number, self.number)
        self._known[number] = memory
        oldest = self.number - KEPT_FRAMES
        self._known = {known: kept for known, kept in self._known.items() if known > oldest}

    @property
    def newest(self) -> Memory | None:
        """Memory of the newest frame that was decoded."""
        return None if self.number is None else self._known.get(self.number)

    @property
    def n_bytes(self) -> int:
        """Number of bytes of the references."""
        return sum(memory.symbols.nbytes + memory.ages.nbytes for memory in self._known.values())
