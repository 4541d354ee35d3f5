"""Decoder of a sequence, which returns the pictures or names the reference that is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

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
    part_seed,
)
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.video import VideoDecoder
from gosvae.entropy.temporal import Memory
from gosvae.errors import BitstreamError, MissingReferenceError
from gosvae.tensors import ImageArray


class SequenceDecoder(VideoDecoder):
    """Decoder of one sequence, see `SequenceCodec`.

    Args:
        codec: variable-rate codec that makes the pictures.
        frames_of: function that returns the coder of a session's frames, or raises `ForeignStreamError`.

    Attributes:
        header: header of the session; None before the first key frame.
        distance: number of frames from the reference to the frame that was decoded last; 0 without a reference.
        unchanged: share of the latent positions of that frame, 0..1, whose symbols are those of the reference.
        number: number of the newest frame that was decoded, counted from the latest key frame, whose own number is
            taken modulo 128; None before the first key frame.
    """

    header: SessionHeader | None
    number: int | None

    def __init__(self, codec: VariableRateCodec, frames_of: Callable[[SessionHeader], FrameCoder]) -> None:
        self.header, self.number = None, None
        self.distance, self.unchanged = 0, 0.0
        self._codec, self._frames_of = codec, frames_of
        self._frames: FrameCoder | None = None
        self._known: dict[int, Memory] = {}

    def decode(self, data: bytes) -> ImageArray:
        return self._codec.reconstruct(self.decode_latent(data))

    def decode_latent(self, data: bytes) -> Latent:
        """Return the latent of a frame, for callers that reconstruct several frames together; errors as `decode`."""
        return self.decode_parts([data])

    def decode_parts(self, parts: Sequence[bytes | None]) -> Latent:
        """Return the latent of a frame whose slices arrived one by one, see `CodedFrame.parts`.

        Lost slices are concealed with the symbols of the newest frame or, if its level differs, of the reference; if
        both levels differ, the decoder network fills them in. `Latent.known_hw` marks the positions that arrived. A
        frame with lost slices is never a reference.

        Args:
            parts: one item with all bytes of a frame, or the part of each slice, None for one that is lost. At least
                one is not None.

        Raises:
            MissingReferenceError, BitstreamError, ForeignStreamError: as `decode`.
        """
        first = next(part for part in parts if part is not None)
        key = is_session(first)
        header = SessionHeader.unpack(first)[0] if key else self.header
        if header is None:
            raise MissingReferenceError("a frame without its session: the sequence is decoded from a key frame on")
        if header != self.header or self._frames is None:
            self._frames, self.header = self._frames_of(header), header
        bodies = [None if part is None else _without_session(part, header, key=key) for part in parts]
        frame, _ = FrameHeader.unpack(next(body for body in bodies if body is not None))
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
        seed = 0 if reference is None else reference.checksum
        if len(bodies) > 1:
            seeds = [part_seed(seed, index) for index in range(len(bodies))]
            payloads = [_payload(*pair, frame, number) for pair in zip(bodies, seeds, strict=True)]
            return self._decode_slices(frame, number, payloads, reference)
        payload = _payload(bodies[0], seed, frame, number)
        assert payload is not None
        memory = self._frames.decode(frame, payload, reference)
        self._note(frame, memory.symbols, reference)
        self._keep(number, memory)
        return Latent(memory.symbols.astype(np.int64), header.height, header.width, memory.level)

    def _decode_slices(
        self, frame: FrameHeader, number: int, payloads: Sequence[bytes | None], reference: Memory | None
    ) -> Latent:
        """Return the latent of a frame, given the payload of each slice; it is kept as a reference if all are there."""
        assert self.header is not None
        assert self._frames is not None
        level = self._frames.level_of(frame, reference)
        similar = next((m for m in (self.newest, reference) if m is not None and m.level == level), None)
        symbols = self._frames.unknown() if similar is None else similar.symbols.astype(np.int64)
        known_hw = self._frames.decode_into(symbols, frame, payloads, reference)
        self._note(frame, symbols, reference)
        damaged = tuple(index for index, payload in enumerate(payloads) if payload is None)
        if not damaged:
            self._keep(number, Memory.after(symbols, level, reference))
        mask = known_hw if damaged else None
        return Latent(symbols, self.header.height, self.header.width, level, mask, damaged)

    def _full_number(self, short: int) -> int:
        """Return the number of a frame from its number modulo 128: the nearest one to the newest frame."""
        if self.number is None:
            return short
        ahead = (short - self.number) % NUMBERS
        number = self.number + (ahead if ahead <= NUMBERS // 2 else ahead - NUMBERS)
        return number if number >= 0 else number + NUMBERS

    def _note(self, frame: FrameHeader, symbols: npt.NDArray[np.integer], reference: Memory | None) -> None:
        self.distance = frame.distance
        same = None if reference is None else (symbols == reference.symbols).all(axis=0)
        self.unchanged = 0.0 if same is None else float(same.mean())

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


def _without_session(part: bytes, header: SessionHeader, *, key: bool) -> bytes:
    """Return a part of a frame without the session header, which all parts of a key frame begin with.

    Raises:
        BitstreamError: the parts do not belong to one frame.
    """
    if is_session(part) != key:
        raise BitstreamError("damaged: only a part of a frame begins as a key frame does")
    if not key:
        return part
    own, rest = SessionHeader.unpack(part)
    if own != header:
        raise BitstreamError("damaged: parts of a frame belong to different sessions")
    return rest


def _payload(body: bytes | None, seed: int, frame: FrameHeader, number: int) -> bytes | None:
    """Return the payload of a frame or of a part of one; None if it is lost.

    Raises:
        BitstreamError: the checksum does not agree, or the part belongs to another frame.
    """
    if body is None:
        return None
    header, start = FrameHeader.unpack(body)
    end = len(body) - CHECK_BYTES
    if end < start or header != frame or checksum(body[:end], seed) != body[end:]:
        raise BitstreamError(f"damaged: the checksum of frame {number} does not agree with it and its reference")
    return body[start:end]
