"""Encoder of a sequence: choice of references, acknowledgements, and budgets.

Axis legend: D latent channels, h and w latent positions.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from gosvae.bitstream import SliceLayout
from gosvae.codecs.latent import SymbolArray
from gosvae.codecs.rate_search import bisect_setting
from gosvae.codecs.sequence.choice import shortest
from gosvae.codecs.sequence.coder import CodedFrame, FrameCoder
from gosvae.codecs.sequence.format import KEPT_FRAMES, NUMBERS, SessionHeader
from gosvae.codecs.slices import check_effort
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.video import VideoEncoder
from gosvae.entropy.latent_network import LEVELS
from gosvae.entropy.temporal import Memory
from gosvae.errors import ConfigError, RateError, ShapeError
from gosvae.tensors import ImageArray, check_image

_FULL = 0.7
"""Share of a budget below which a frame counts as small."""
_PATIENCE = 4
"""Number of small frames in a row before a higher level is tried: a change of level costs bytes of its own."""
_HEARD = 64
"""Number of the latest outcomes by which a link counts as lossy."""
_LOSSY = 2
"""Least number of losses among these outcomes for a lossy link."""


@dataclass(frozen=True)
class SequenceOptions:
    """Options of the trained video codec for writing sequences.

    Attributes:
        level: level of frames without a budget, 0..255; None means the level of the codec.
        effort: number of searches for symbols that take fewer bytes. Without a search, symbols that are near those of
            the reference are kept, and the others are rounded.
        key_interval: number of frames from one key frame to the next; None makes key frames only where there is no
            reference.
        slices, layout: number and layout of the slices of a frame; see `StreamOptions`.
        stiffness: factor of the weight of distortion in the searches, above 0.

    Raises:
        ConfigError: a value is outside its range.
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


class SequenceEncoder(VideoEncoder):
    """Encoder of one sequence, see `SequenceCodec`.

    A key frame begins with the session header and depends on no other frame. Every other frame has a reference: the
    newest frame that was sent, or, after a loss, the newest frame that the receiver has acknowledged. On a link that
    loses frames repeatedly (`is_lossy`) the reference is always an acknowledged frame. Each frame that arrives can then
    be decoded, whatever was lost before it, but references are older by the round trip. Until a frame is acknowledged
    after a key frame, the key frame takes the place of the acknowledged frame.

    Args:
        codec: variable-rate codec that makes the latents.
        frames: coder of the frames of the session.
        header: session header.
        options: options for writing sequences.

    Attributes:
        header: session header.
        last: frame that was coded last; None before the first.
        level: level of frames without a budget; it may be changed between two frames.
    """

    def __init__(
        self, codec: VariableRateCodec, frames: FrameCoder, header: SessionHeader, options: SequenceOptions
    ) -> None:
        self.header, self.last = header, None
        self._codec, self._frames, self._options = codec, frames, options
        self._header_bytes = header.pack()
        self._number, self._key_number = 0, 0
        self._sent: dict[int, Memory] = {}
        self._acknowledged: int | None = None
        self._lost_until: int | None = None
        self._is_key_in_doubt = False
        self._losses: deque[bool] = deque(maxlen=_HEARD)
        self.level = codec.level if options.level is None else options.level
        self._spare = 0

    last: CodedFrame | None

    def acknowledge(self, frame_number: int) -> None:
        """See `VideoEncoder.acknowledge`; numbers of frames that were not sent are ignored."""
        if frame_number not in self._sent or (self._acknowledged is not None and frame_number <= self._acknowledged):
            return
        self._losses.append(False)
        self._acknowledged = frame_number
        self._sent = {number: memory for number, memory in self._sent.items() if number >= frame_number}
        if self._lost_until is not None and frame_number >= self._lost_until:
            self._lost_until = None

    def lost(self, frame_number: int | None = None) -> None:
        """See `VideoEncoder.lost`: until the next frame is acknowledged, only acknowledged frames are references.

        Frames before the latest key frame are ignored: nothing depends on them. The next frame is a key frame if no
        frame was acknowledged since the latest one, which may be lost too; with a number, only if it is that one.
        """
        if frame_number is not None and frame_number < self._key_number:
            return
        if self._acknowledged is None and frame_number in (None, self._key_number):
            self._is_key_in_doubt = True
        if self._lost_until is None or self.is_lossy:  # frames that depend on a lost one are no further losses
            self._losses.append(True)
        if self._lost_until is None:
            self._lost_until = self._number

    @property
    def is_lossy(self) -> bool:
        """Whether several of the latest frames were lost."""
        return sum(self._losses) >= _LOSSY

    def is_lost(self, frame_number: int) -> bool:
        """Return whether a frame was coded after a loss from which the receiver has not recovered.

        It has recovered once it acknowledges a frame that was coded after the loss. If a frame before that is not
        decoded either, the receiver may lack the reference of this frame.
        """
        return self._lost_until is not None and frame_number >= self._lost_until

    def begin_again(self) -> None:
        """Make the next frame a key frame, because the receiver may have no reference."""
        self._sent, self._acknowledged, self._lost_until = {}, None, None

    @property
    def parts(self) -> list[bytes]:
        """Parts of the frame that was coded last, one for each slice; each can be decoded without the others."""
        assert self.last is not None
        begin = self._header_bytes if self._number - 1 == self._key_number else b""
        return [begin + part for part in self.last.parts()]

    @property
    def key_number(self) -> int:
        """Number of the latest key frame, counted from 0."""
        return self._key_number

    @property
    def next_number(self) -> int:
        """Number of the next frame, counted from 0."""
        return self._number

    def encode(self, frame_uint8_HW3: ImageArray, *, budget_bytes: int | None = None) -> bytes:
        size = check_image(frame_uint8_HW3).shape[:2]
        if size != (self.header.height, self.header.width):
            raise ShapeError(f"expected frames of {self.header.height}x{self.header.width} pixels", size)
        latent_1Dhw = self._codec.analyse(frame_uint8_HW3)
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
        careful = self._lost_until is not None or self.is_lossy
        number = max(self._sent, default=None)
        if careful:
            number = self._acknowledged
            if number is None and not self._is_key_in_doubt:
                number = self._key_number
        if number is None or number not in self._sent or self._number - number >= KEPT_FRAMES:
            return None
        return self._number - number, self._sent[number]

    def _at_level(self, latent_1Dhw: Tensor, level: int, found: tuple[int, Memory] | None) -> CodedFrame:
        """Return the frame at a level: the shortest of intra, network and tables."""
        number, effort = self._number % NUMBERS, self._options.effort

        def alone() -> SymbolArray:
            return self._codec.coder.quantise(latent_1Dhw, level)

        if found is None:
            return self._frames.encode_intra(alone(), level, number)
        distance, reference = found
        symbols = self._frames.assign(latent_1Dhw, level, reference, effort, self._options.stiffness)
        return shortest(self._frames, symbols, level, number, reference, distance, alone)

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
            self._acknowledged, self._is_key_in_doubt = None, False
        self._sent[self._number] = coded.memory
        oldest = self._number - KEPT_FRAMES
        self._sent = {number: memory for number, memory in self._sent.items() if number > oldest}
        self._number += 1
        return (self._header_bytes if key else b"") + coded.data
