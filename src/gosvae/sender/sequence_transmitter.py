"""Coding of a video at the sender: each frame depends on an earlier one, which is chosen by the receiver's feedback."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.sequence.encoder import SequenceEncoder
from gosvae.codecs.sequence.format import is_session
from gosvae.codecs.sequence.rate import DEFAULT_MAX_AGE_MS, RateControl
from gosvae.protocol.frames import Reason
from gosvae.sender.transmitter import Transmitter
from gosvae.tensors import ImageArray

log = logging.getLogger(__name__)

SILENCE_S = 1.0
"""Seconds without an outcome from the receiver after which the next frame is a key frame."""
_MOST_FAILURES = 4
"""Number of frames in a row that are not decoded, on a lossy link, after which the receiver counts as lacking their
references."""
_REFUSING = (Reason.DAMAGED, Reason.FOREIGN, Reason.MALFORMED)
"""Reasons for which a receiver that takes only single pictures refuses the first frame of a video."""


class SequenceTransmitter(Transmitter):
    """Video codec of a sender, whose frame rate and level follow the rate of the link.

    If the receiver refuses a key frame, it is assumed to decode single pictures only, and the sender then codes each
    picture on its own.

    Args:
        codec: video codec.
        kbps: rate on the link in 1000 bits a second; None sends every picture at the codec's level.
        fps: estimated number of pictures a second.
        max_age_ms: longest time in milliseconds between two frames that are sent; used with `kbps` only.
        lossy: whether frames may be lost on the way. A frame that was not decoded then does not show that the receiver
            lacks its reference.

    Attributes:
        pictures_only: whether the receiver has refused videos.

    Raises:
        ConfigError: `kbps`, `fps` or `max_age_ms` is not above 0.
    """

    def __init__(
        self,
        codec: SequenceCodec,
        *,
        kbps: float | None = None,
        fps: float = 10.0,
        max_age_ms: float = DEFAULT_MAX_AGE_MS,
        lossy: bool = False,
    ) -> None:
        super().__init__(codec.codec, kbps=kbps, fps=fps)
        self._sequences, self._fps = codec, fps
        self._control = None if kbps is None else RateControl(kbps, fps, max_age_ms)
        self._encoder: SequenceEncoder | None = None
        self._first, self._sent, self._acknowledged = 0, 0, -1
        self._key, self._keys = False, set[int]()
        self._failures, self._most_failures = 0, _MOST_FAILURES if lossy else 1
        self._heard: deque[tuple[int, Reason | None]] = deque()
        self._heard_s: float | None = None
        self._lock = threading.Lock()
        self.pictures_only = False

    @property
    def waits(self) -> bool:
        """See `Transmitter.waits`; False for a video with a rate, which is kept by leaving frames out."""
        return self._control is None or self.pictures_only

    def hear(self, number: int, reason: Reason | None) -> None:
        """Take the outcome of a frame into account; any thread may call this.

        Args:
            number: number of the frame, from 0.
            reason: reason why the frame was dropped; None if it was decoded.
        """
        with self._lock:
            self._heard.append((number, reason))

    def _code(self, image_uint8_HW3: ImageArray, now_s: float, room: Callable[[float], int]) -> bytes | None:
        self._listen(now_s)
        if self.pictures_only:
            return super()._code(image_uint8_HW3, now_s, room)
        height, width = image_uint8_HW3.shape[:2]
        if self._control is not None and self._encoder is None:
            self._control.expect(height * width)
        if self._control is not None and not self._control.wants(now_s):
            return None
        return self._coded(image_uint8_HW3)

    def recode(self, frames: Sequence[tuple[int, ImageArray]]) -> list[bytes] | None:
        """See `Transmitter.recode`: the first of the frames becomes a key frame, and none depends on an earlier one."""
        if self.pictures_only or self._encoder is None or not frames:
            return None
        first = frames[0][0]
        if [number for number, _ in frames] != list(range(first, self._sent)):
            self._encoder.begin_again()
            return None
        with self._lock:
            self._heard.clear()
        self._encoder, self._sent, self._failures, self._heard_s = None, first, 0, None
        return [self._coded(picture) for _, picture in frames]

    def _coded(self, image_uint8_HW3: ImageArray) -> bytes:
        """Return the stream of the next frame."""
        height, width = image_uint8_HW3.shape[:2]
        encoder = self._encoder
        if encoder is None or (encoder.header.height, encoder.header.width) != (height, width):
            encoder = self._encoder = self._sequences.encoder(height, width, frames_per_second=self._fps)
            self._first = self._sent
        if self._control is not None:
            encoder.level = self._control.level
        data = encoder.encode(image_uint8_HW3)
        self._key = is_session(data)
        if self._key:
            self._keys.add(self._sent)
        self._sent += 1
        return self._sequences.wrapped(encoder.parts, height, width)

    def _listen(self, now_s: float) -> None:
        """Apply the outcomes that have arrived since the last frame."""
        with self._lock:
            heard, self._heard = self._heard, deque()
        encoder = self._encoder
        if encoder is None:
            return
        if heard or self._heard_s is None:
            self._heard_s = now_s
        elif now_s - self._heard_s > SILENCE_S:
            encoder.begin_again()
            self._heard_s = now_s
        newest = max((number for number, reason in heard if reason is None), default=-1)
        for number, reason in heard:
            if number < self._first or number <= self._acknowledged:
                continue
            if reason is None:
                self._acknowledged, self._failures = number, 0
                encoder.acknowledge(number - self._first)
            elif reason in _REFUSING and number in self._keys:
                log.warning("the receiver refuses videos (%s): each frame is sent on its own", reason)
                self.pictures_only = True
                return
            elif number - self._first < encoder.key_number:
                continue  # the frames to come do not depend on it
            elif number > newest and self._lacks_references(encoder, number):
                encoder.begin_again()
                self._failures = 0
            else:
                encoder.lost(number - self._first)

    def _lacks_references(self, encoder: SequenceEncoder, number: int) -> bool:
        """Return whether a frame that was not decoded shows that the receiver lacks the reference of the next one."""
        self._failures += encoder.is_lost(number - self._first)
        return number in self._keys or self._failures >= self._most_failures

    def spend(self, link_bytes: int) -> None:
        """See `Transmitter.spend`."""
        super().spend(link_bytes)
        if self._control is not None and not self.pictures_only:
            self._control.sent(link_bytes, key=self._key)
