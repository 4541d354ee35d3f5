"""What every codec behind a checkpoint has in common, whatever its kind."""

from __future__ import annotations

from abc import abstractmethod

from gosvae import bitstream
from gosvae.checkpoint import CodecCheckpoint
from gosvae.codecs.base import ImageCodec


class TrainedCodec(ImageCodec):
    """A codec that was trained: its model is a checkpoint, and its streams name the model by a fingerprint.

    Attributes:
        checkpoint: configuration, weights and frequency tables.
        fingerprint: first 8 bytes of the checkpoint's SHA-256; streams hold its beginning.
    """

    def __init__(self, checkpoint: CodecCheckpoint) -> None:
        self.checkpoint = checkpoint
        self.fingerprint = checkpoint.fingerprint()[: bitstream.FINGERPRINT_BYTES]

    @property
    def name(self) -> str:
        return self.checkpoint.card.name

    @property
    @abstractmethod
    def description(self) -> dict[str, str]:
        """What `gosvae info` says about the model: a line of text for each of its parts."""

    def payload_bytes(self, data: bytes) -> int:
        return bitstream.payload_bytes(data)
