"""Contract of video codecs, classical and trained: every frame becomes bytes at once, and bytes become a frame.

A video codec makes encoders and decoders, which keep the state of one sequence. No encoder looks ahead: the bytes of a
frame are complete when `VideoEncoder.encode` returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from gosvae.tensors import ImageArray


class VideoEncoder(ABC):
    """Encoder of one sequence of frames that all have the same size."""

    @abstractmethod
    def encode(self, frame_uint8_HW3: ImageArray, *, budget_bytes: int | None = None) -> bytes:
        """Compress the next frame, uint8 (H, W, 3), to all of its bytes, headers included.

        Args:
            frame_uint8_HW3: the frame.
            budget_bytes: largest number of bytes for this frame; None means that the settings of the codec decide.

        Raises:
            ShapeError: the array is not a uint8 RGB image, or its size is not that of the frames before it.
            RateError: the codec cannot meet the budget.
            ConfigError: the codec takes no budget for single frames.
        """

    def acknowledge(self, frame_number: int) -> None:  # noqa: B027 - most encoders have no use for it
        """Tell the encoder that the receiver has decoded a frame, counted from 0; it may then be a reference."""

    def lost(self, frame_number: int | None = None) -> None:  # noqa: B027
        """Tell the encoder that the receiver lacks a reference: the next frame uses an acknowledged one or none.

        Args:
            frame_number: number of the frame that was not decoded, counted from 0; None if it is not known.
        """


class VideoDecoder(ABC):
    """Decoder of one sequence of frames."""

    @abstractmethod
    def decode(self, data: bytes) -> ImageArray:
        """Reconstruct the frame, uint8 (H, W, 3), of what one call of `VideoEncoder.encode` returned.

        Raises:
            MissingReferenceError: the frame depends on one that this decoder does not have.
            BitstreamError: the bytes are damaged, incomplete or of another format.
            ForeignStreamError: intact bytes that another model made.
        """


class VideoCodec(ABC):
    """A complete video codec. Classical and trained codecs are interchangeable."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the codec in tables."""

    @abstractmethod
    def encoder(self, height: int, width: int, *, frames_per_second: float) -> VideoEncoder:
        """Return a new encoder for frames of height x width pixels."""

    @abstractmethod
    def decoder(self) -> VideoDecoder:
        """Return a new decoder."""


def encode_sequence(codec: VideoCodec, frames: Sequence[ImageArray], *, frames_per_second: float) -> list[bytes]:
    """Return the bytes of every frame of a sequence, by one encoder that hears nothing of the receiver.

    Args:
        codec: video codec.
        frames: at least one frame, uint8 (H, W, 3), all of one size.
        frames_per_second: rate of the frames.

    Raises:
        ShapeError: as `VideoEncoder.encode`.
    """
    encoder = codec.encoder(*frames[0].shape[:2], frames_per_second=frames_per_second)
    return [encoder.encode(frame) for frame in frames]
