"""Any image codec as a video codec that knows nothing of earlier frames."""

from __future__ import annotations

from gosvae.codecs.base import ImageCodec, RateControlledCodec
from gosvae.codecs.video import VideoCodec, VideoDecoder, VideoEncoder
from gosvae.errors import ConfigError, ShapeError
from gosvae.tensors import ImageArray, check_image


class FrameByFrame(VideoCodec):
    """Use this when a video is to be coded by an image codec, each frame on its own.

    Compared with a codec that has a temporal model, it takes more bytes where little moves, and a lost frame harms no
    other one.

    Args:
        codec: image codec.
    """

    def __init__(self, codec: ImageCodec) -> None:
        self.codec = codec

    @property
    def name(self) -> str:
        """Name of the image codec."""
        return self.codec.name

    def encoder(self, height: int, width: int, *, frames_per_second: float) -> VideoEncoder:
        del frames_per_second
        return _FrameEncoder(self.codec, (height, width))

    def decoder(self) -> VideoDecoder:
        return _FrameDecoder(self.codec)


class _FrameEncoder(VideoEncoder):
    def __init__(self, codec: ImageCodec, size_hw: tuple[int, int]) -> None:
        self._codec, self._size_hw = codec, size_hw

    def encode(self, frame_uint8_HW3: ImageArray, *, budget_bytes: int | None = None) -> bytes:
        frame = check_image(frame_uint8_HW3)
        if frame.shape[:2] != self._size_hw:
            raise ShapeError(f"expected frames of {self._size_hw[0]}x{self._size_hw[1]} pixels", frame.shape)
        if budget_bytes is None:
            return self._codec.compress(frame)
        if not isinstance(self._codec, RateControlledCodec):
            raise ConfigError(f"the rate of {self._codec.name!r} is fixed: leave out the budget")
        return self._codec.compress_to_budget(frame, budget_bytes)


class _FrameDecoder(VideoDecoder):
    def __init__(self, codec: ImageCodec) -> None:
        self._codec = codec

    def decode(self, data: bytes) -> ImageArray:
        return self._codec.decompress(data)
