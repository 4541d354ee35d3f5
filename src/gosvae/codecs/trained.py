"""What every codec behind a checkpoint has in common, whatever its kind."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from gosvae import bitstream
from gosvae.codecs.base import ImageCodec
from gosvae.codecs.checkpoint import CodecCheckpoint
from gosvae.errors import ImageError
from gosvae.tensors import ImageArray, check_image, image_to_tensor, pad_to_multiple


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


def encoder_input(image_uint8_HW3: ImageArray, stride: int, device: torch.device) -> Tensor:
    """What an encoder takes: float (1, 3, H, W) in [0, 1], padded to multiples of the stride.

    Raises:
        ShapeError: the array is not a uint8 RGB image.
        ImageError: a side is longer than 65535 pixels, or there are more than 2**28 pixels.
    """
    image = check_image(image_uint8_HW3)
    if max(image.shape) > bitstream.MAX_SIDE:
        raise ImageError(f"sides of at most {bitstream.MAX_SIDE} pixels can be coded, got {image.shape[:2]}")
    if image.shape[0] * image.shape[1] > bitstream.MAX_PIXELS:
        raise ImageError(f"at most {bitstream.MAX_PIXELS} pixels can be coded, got {image.shape[:2]}: resize it")
    return pad_to_multiple(image_to_tensor(image), stride).to(device, memory_format=torch.channels_last)
