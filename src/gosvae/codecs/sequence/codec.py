"""The trained video codec: encoder and decoder of a sequence, with references and acknowledgements.

Axis legend: D latent channels, h and w latent positions, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from gosvae.bitstream import SHORT_FINGERPRINT_BYTES, SliceLayout
from gosvae.codecs.latent import Latent
from gosvae.codecs.rate_search import bisect_setting
from gosvae.codecs.sequence.coder import CodedFrame, FrameCoder
from gosvae.codecs.sequence.format import (
    CHECK_BYTES,
    MOST_DISTANCE,
    NUMBERS,
    FrameHeader,
    Mode,
    SessionHeader,
    checksum,
    is_session,
)
from gosvae.codecs.slices import check_effort, xor_mark
from gosvae.codecs.temporal_model import TemporalModel, load_temporal_model
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.video import VideoCodec, VideoDecoder, VideoEncoder
from gosvae.entropy.latent_network import LEVELS
from gosvae.entropy.temporal import Memory
from gosvae.errors import BitstreamError, ConfigError, ForeignStreamError, MissingReferenceError, RateError, ShapeError
from gosvae.tensors import ImageArray, check_image

_FULL = 0.7
"""Share of a budget below which a frame makes the encoder try a higher level."""
_PATIENCE = 4
"""Number of such frames in a row before it does: a change of level costs bytes of its own."""


_RECENT = 8
"""Number of frames for which the size of an intra frame is believed to tell that of the next ones."""
_CALM, _FAR_SHORTER = 5, 0.6
"""Greatest activity and greatest share of that size at which a frame is sent without another try as an intra frame."""


@dataclass(frozen=True)
class SequenceOptions:
    """Options of the trained video codec for writing sequences.

    Attributes:
        level: level of frames without a budget, 0..255; None means the level of the codec.
        effort: number of searches for symbols that take fewer bytes: 0 keeps those of the reference where they are near
            and rounds the others.
        key_interval: number of frames from one key frame to the next; None makes key frames only where there is no
            reference.
        slices, layout: see `StreamOptions`.
        stiffness: factor of the weight of distortion in the searches.

    Raises:
        ConfigError: a value outside its range.
    """

    level: int | None = None
    effort: int = 1
    key_interval: int | None = None
    slices: int = 1
    layout: SliceLayout = "bands"
    stiffness: float = 1.0

    def __post_init__(self) -> None:
        check_effort(self.effort)
        if self.level is not None and not 0 <= self.level < LEVELS:
            raise ConfigError(f"level {self.level}: expected 0..{LEVELS - 1}", argument="level")
        if self.key_interval is not None and self.key_interval < 1:
            raise ConfigError(f"a key frame every {self.key_interval} frames: expected at least 1")
        if self.stiffness <= 0:
            raise ConfigError(f"stiffness {self.stiffness}: expected a positive factor")


class SequenceCodec(VideoCodec):
    """Use this for the frames of a camera or a video whose receiver is a perception model.

    Compared with a `VariableRateCodec` on each frame, it takes a fraction of the bytes where little moves, and a frame
    depends on an earlier one. Pictures are the same as those of that codec for the same symbols.

    Args:
        codec: variable-rate codec of the transforms.
        model: its temporal model.
        options: options for writing sequences.

    Raises:
        CheckpointError: the temporal model does not fit its configuration.
    """

    def __init__(self, codec: VariableRateCodec, model: TemporalModel, options: SequenceOptions | None = None) -> None:
        self.codec, self.model, self.options = codec, model, options or SequenceOptions()
        self.mark = xor_mark(codec.checkpoint.context_mark(), model.mark)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        options: SequenceOptions | None = None,
        device: str | torch.device = "cpu",
    ) -> SequenceCodec:
        """Load codec and temporal model from a checkpoint folder.

        Raises:
            CheckpointError: the folder is not a finished codec with a temporal model.
        """
        codec = VariableRateCodec.load(folder, device=device)
        return cls(codec, load_temporal_model(Path(folder), codec.checkpoint.fingerprint()), options)

    @property
    def name(self) -> str:
        return f"{self.codec.name} (video)"

    def at(self, level: int) -> SequenceCodec:
        """Return the same codec at another level; they share the networks."""
        return SequenceCodec(self.codec, self.model, replace(self.options, level=level))

    def encoder(self, height: int, width: int, *, frames_per_second: float = 0.0) -> SequenceEncoder:
        options = self.options
        fingerprint = self.codec.fingerprint[:SHORT_FINGERPRINT_BYTES]
        header = SessionHeader(fingerprint, self.mark, height, width, frames_per_second, options.slices, options.layout)
        return SequenceEncoder(self, header)

    def decoder(self) -> SequenceDecoder:
        return SequenceDecoder(self)

    def frame_coder(self, header: SessionHeader) -> FrameCoder:
        """Return the coder of a session's frames.

        Raises:
            ForeignStreamError: another codec or another temporal model made the session.
        """
        if header.fingerprint != self.codec.fingerprint[:SHORT_FINGERPRINT_BYTES]:
            raise ForeignStreamError(
                f"made by another codec: the session's fingerprint is {header.fingerprint.hex()}, that of "
                f"{self.codec.name} is {self.codec.fingerprint[:SHORT_FINGERPRINT_BYTES].hex()}"
            )
        if header.mark != self.mark:
            raise ForeignStreamError(f"made with another temporal model than that of this {self.codec.name}")
        stride = self.codec.transform.stride
        grid_hw = (-(-header.height // stride), -(-header.width // stride))
        return FrameCoder(self.codec, self.model, header.slices, header.layout, grid_hw)


class SequenceEncoder(VideoEncoder):
    """Encoder of one sequence, see `SequenceCodec`.

    A key frame begins with the session header and depends on nothing. The reference of another frame is the newest one
    that was sent, as long as no loss is known, and otherwise the newest one that the receiver has acknowledged.

    Attributes:
        header: session header.
        last: frame that was coded last; None before the first.
        level: level of frames without a budget; it may be changed between two frames.
    """

    def __init__(self, codec: SequenceCodec, header: SessionHeader) -> None:
        self.header, self.last = header, None
        self._codec, self._options = codec, codec.options
        self._frames = codec.frame_coder(header)
        self._header_bytes = header.pack()
        self._number, self._key_number = 0, 0
        self._sent: dict[int, Memory] = {}
        self._acknowledged: int | None = None
        self._lost_until: int | None = None
        self.level = codec.codec.level if codec.options.level is None else codec.options.level
        self._spare = 0
        self._intra = (-1, 0, 0)

    last: CodedFrame | None

    def acknowledge(self, frame_number: int) -> None:
        """See `VideoEncoder.acknowledge`; numbers of frames that were not sent are ignored."""
        if frame_number not in self._sent or frame_number < (self._acknowledged or 0):
            return
        self._acknowledged = frame_number
        self._sent = {number: memory for number, memory in self._sent.items() if number >= frame_number}
        if self._lost_until is not None and frame_number >= self._lost_until:
            self._lost_until = None

    def lost(self) -> None:
        """See `VideoEncoder.lost`: until the next frame is acknowledged, only acknowledged frames are references."""
        if self._lost_until is None:
            self._lost_until = self._number

    def begin_again(self) -> None:
        """Make the next frame a key frame: the receiver has nothing, or nothing has been heard of it."""
        self._sent, self._acknowledged, self._lost_until = {}, None, None

    @property
    def next_number(self) -> int:
        """Number of the next frame, counted from 0."""
        return self._number

    def encode(self, frame_uint8_HW3: ImageArray, *, budget_bytes: int | None = None) -> bytes:
        size = check_image(frame_uint8_HW3).shape[:2]
        if size != (self.header.height, self.header.width):
            raise ShapeError(f"expected frames of {self.header.height}x{self.header.width} pixels", size)
        latent_1Dhw = self._codec.codec.analyse(frame_uint8_HW3)
        found = self._reference()
        with torch.inference_mode():
            if budget_bytes is None:
                coded = self._at_level(latent_1Dhw, self.level, found)
            else:
                coded = self._within(latent_1Dhw, budget_bytes, found)
        return self._sent_bytes(coded, found is None)

    def _reference(self) -> tuple[int, Memory] | None:
        """Return the distance and the memory of the reference of the next frame; None makes a key frame."""
        interval = self._options.key_interval
        if interval is not None and self._number - self._key_number >= interval:
            return None
        number = self._acknowledged if self._lost_until is not None else max(self._sent, default=None)
        if number is None or number not in self._sent or self._number - number > MOST_DISTANCE:
            return None
        return self._number - number, self._sent[number]

    def _at_level(self, latent_1Dhw: Tensor, level: int, found: tuple[int, Memory] | None) -> CodedFrame:
        """Return the frame at a level: the shortest of intra, network and tables."""
        number, effort = self._number % NUMBERS, self._options.effort
        if found is None:
            symbols = self._codec.codec.coder.quantise(latent_1Dhw, level)
            return self._frames.encode_intra(symbols, level, number)
        distance, reference = found
        symbols = self._frames.assign(latent_1Dhw, level, reference, effort, self._options.stiffness)
        best = self._frames.encode(symbols, level, number, reference, distance, tables=False)
        if best.header.mode is Mode.UNCHANGED:
            return best
        tables = self._frames.encode(symbols, level, number, reference, distance, tables=True)
        best = min(best, tables, key=lambda coded: len(coded.data))
        if self._is_certainly_shorter(best):
            return best
        alone = self._codec.codec.coder.quantise(latent_1Dhw, level)
        intra = self._frames.encode_intra(alone, level, number)
        self._intra = level, self._number, len(intra.data)
        return min(best, intra, key=lambda coded: len(coded.data))

    def _is_certainly_shorter(self, coded: CodedFrame) -> bool:
        """Return whether few symbols have changed, and the frame is far shorter than a recent intra frame."""
        level, number, n_bytes = self._intra
        recent = level == coded.memory.level and self._number - number < _RECENT
        return recent and coded.header.activity <= _CALM and len(coded.data) < _FAR_SHORTER * n_bytes

    def _within(self, latent_1Dhw: Tensor, budget_bytes: int, found: tuple[int, Memory] | None) -> CodedFrame:
        """Return the frame within a budget: at the level of the frames before it, if it fits.

        Raises:
            RateError: even the lowest level takes more.
        """
        extra = len(self._header_bytes) if found is None else 0
        frames: dict[int, CodedFrame] = {}

        def data(level: int) -> bytes:
            if level not in frames:
                frames[level] = self._at_level(latent_1Dhw, level, found)
            return frames[level].data

        def highest(fits: int, exceeds: int) -> int:
            return bisect_setting(data, budget_bytes - extra, fits=fits, exceeds=exceeds, stream=b"")[0]

        if found is None or len(data(self.level)) + extra > budget_bytes:
            level = highest(-1, LEVELS if found is None else self.level)
            if level < 0:
                raise RateError(
                    f"a frame takes {len(data(0)) + extra} bytes at the lowest level, more than {budget_bytes}"
                )
            self.level, self._spare = level, 0
        elif len(data(self.level)) < _FULL * budget_bytes:
            self._spare += 1
            if self._spare > _PATIENCE:
                self.level, self._spare = highest(self.level, LEVELS), 0
        else:
            self._spare = 0
        data(self.level)
        return frames[self.level]

    def _sent_bytes(self, coded: CodedFrame, key: bool) -> bytes:
        """Return the bytes of a frame, and keep it as a reference."""
        self.last = coded
        if key:
            self._sent, self._key_number = {}, self._number
        self._sent[self._number] = coded.memory
        oldest = self._number - MOST_DISTANCE
        self._sent = {number: memory for number, memory in self._sent.items() if number >= oldest}
        self._number += 1
        return (self._header_bytes if key else b"") + coded.data


class SequenceDecoder(VideoDecoder):
    """Decoder of one sequence, see `SequenceCodec`.

    Attributes:
        header: header of the session; None before the first key frame.
        number: number of the newest frame that was decoded; numbers begin with that of the first key frame, modulo 128.
    """

    header: SessionHeader | None
    number: int | None

    def __init__(self, codec: SequenceCodec) -> None:
        self.header, self.number = None, None
        self._codec = codec
        self._frames: FrameCoder | None = None
        self._known: dict[int, Memory] = {}

    def decode(self, data: bytes) -> ImageArray:
        return self._codec.codec.reconstruct(self.decode_latent(data))

    def decode_latent(self, data: bytes) -> Latent:
        """Return the latent of a frame, for decoders that reconstruct several together; errors as `decode`."""
        key = is_session(data)
        if key:
            header, data = SessionHeader.unpack(data)
            if header != self.header or self._frames is None:
                self._frames = self._codec.frame_coder(header)
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
        return Latent(memory.symbols.astype("int64"), self.header.height, self.header.width, memory.level)

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
        oldest = self.number - MOST_DISTANCE
        self._known = {known: kept for known, kept in self._known.items() if known >= oldest}
