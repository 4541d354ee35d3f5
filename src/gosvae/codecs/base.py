"""Contract of codecs, classical and trained: an image becomes bytes, and bytes become an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gosvae.tensors import ImageArray


class ImageCodec(ABC):
    """A complete image codec. Classical and trained codecs are interchangeable."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the codec in tables."""

    @abstractmethod
    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        """Compress an RGB image, uint8 (H, W, 3), to a complete file: header and payload.

        Raises:
            ShapeError: the array is not a uint8 RGB image.
        """

    @abstractmethod
    def decompress(self, data: bytes) -> ImageArray:
        """Reconstruct the image, uint8 (H, W, 3), at its original size.

        Raises:
            BitstreamError: the bytes are damaged, incomplete or of another format.
            ForeignStreamError: an intact stream that another model made.
        """

    def payload_bytes(self, data: bytes) -> int:
        """Return the number of bytes of a stream without its header: the coded picture itself."""
        return len(data)

    def codestream_bytes(self, data: bytes) -> int:
        """Return the number of bytes of a stream without the boxes of a container.

        Boxes name the format and repeat what the coded picture says itself; a receiver that knows the format can do
        without them.
        """
        return len(data)

    @property
    def parameter_count(self) -> int:
        """Number of parameters of the networks behind the codec; 0 for a classical codec."""
        return 0


@runtime_checkable
class SendsObjects(Protocol):
    """A codec that may send the labelled objects of a picture, which it does not see in the picture itself."""

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names of the classes of object maps; empty if the codec sees for itself what it sends."""

    def compress_objects(self, objects_int32_HW: npt.NDArray[np.int32]) -> bytes:
        """Return the stream of an object map (H, W), see `gosvae.datasets.objects`."""


class RateControlledCodec(ImageCodec):
    """A codec whose rate can be set for every image."""

    @abstractmethod
    def compress_to_budget(self, image_uint8_HW3: ImageArray, budget_bytes: int) -> bytes:
        """Return the stream of the best quality that takes at most `budget_bytes`.

        Raises:
            RateError: even the lowest quality takes more.
        """

    @abstractmethod
    def compress_smallest(self, image_uint8_HW3: ImageArray) -> bytes:
        """Return the smallest stream of the image, for use where no budget can be met."""


@dataclass(frozen=True)
class Concealed:
    """A picture whose lost parts are filled in.

    Attributes:
        image_uint8_HW3: the picture at its original size.
        concealed_HW: bool (H, W), the pixels whose own latent position was lost and guessed. Neighbours within reach
            of the decoder may show a guess too; they are not marked.
        damaged: numbers, from 0, of the slices that did not arrive; empty if the picture is that of `decompress`.
    """

    image_uint8_HW3: ImageArray
    concealed_HW: npt.NDArray[np.bool_]
    damaged: tuple[int, ...]


class LossTolerantCodec(ImageCodec):
    """A codec whose streams can be cut into slices; those that arrive make a picture."""

    @abstractmethod
    def decompress_damaged(self, data: bytes) -> Concealed:
        """Return the picture of the intact slices of a stream, with lost slices concealed.

        Where nothing is lost the picture is that of `decompress`.

        Raises:
            BitstreamError: the header is damaged, or no slice is intact.
            ForeignStreamError: as `decompress`.
        """


class ClassMapCodec(ImageCodec):
    """A codec whose receiver gets the class map itself, so that no expert looks at what `decompress` shows."""

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of their numbers."""

    @abstractmethod
    def class_map(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Return the class of every pixel, uint8 (H, W); errors as `decompress`."""
