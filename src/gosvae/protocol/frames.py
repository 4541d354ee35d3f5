"""Frames and their outcomes: a frame is answered, or it is dropped for a reason.

A receiver makes these values, and a sender reads the same values from the receiver's messages.

Axis legend: H and W pixels, 3 RGB channels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from gosvae.protocol.arrays import CodedArray, Values
from gosvae.protocol.class_maps import ClassArray, ClassMapCoding, decode_class_map
from gosvae.tensors import ImageArray


class Reason(StrEnum):
    """Reason for which a frame is dropped.

    `gosvae.wire.REASONS` has the numbers of the reasons in messages, and `docs/service.md` explains each of them.
    """

    MALFORMED = "malformed"
    DAMAGED = "damaged"
    FOREIGN = "foreign"
    TOO_LARGE = "too-large"
    QUEUE_FULL = "queue-full"
    SUPERSEDED = "superseded"
    STALE = "stale"
    FAILED = "failed"
    SHUTDOWN = "shutdown"
    INCOMPLETE = "incomplete"
    GONE = "gone"


@dataclass(frozen=True)
class Frame:
    """A frame that arrived at a receiver.

    Attributes:
        sender: the receiver's name for the sender; not the name that the sender gives itself.
        number: number of the frame, as the sender counts.
        stream: bytes that the codec made, or the part of them that arrived.
        incomplete: whether slices are missing, which the codec then conceals.
        coding: coding of the class map in the answer.
        deadline_ms: greatest age of the frame, from its arrival, when its turn comes; 0 means no deadline of its own.
            The engine may have a deadline too; the shorter of both counts.
        original: the picture as an image file, for people; empty if none was sent.
        patient: whether the sender waits for the answer however long it takes; the same for all frames of a sender.
        arrived_s: time of arrival on the clock of `time.monotonic`.
        results: whether the answer has the results of the experts of other tasks.
        carried_bytes: number of bytes that arrived over the link, if the receiver has put a container around them; 0
            means that all bytes of `stream` arrived.
    """

    sender: str
    number: int
    stream: bytes
    incomplete: bool = False
    coding: ClassMapCoding = "zlib"
    deadline_ms: float = 0.0
    original: bytes = b""
    patient: bool = False
    arrived_s: float = field(default_factory=time.monotonic)
    results: bool = False
    carried_bytes: int = 0

    @property
    def stream_bytes(self) -> int:
        """Number of bytes of the stream as it was sent."""
        return self.carried_bytes or len(self.stream)

    @property
    def n_bytes(self) -> int:
        """Number of bytes that the frame takes in the queue."""
        return len(self.stream) + len(self.original)


@dataclass
class StageTimes:
    """Times that a frame spent in the stages of the receiver, in milliseconds.

    Attributes:
        queue_ms: time from arrival until the frame's turn.
        entropy_ms: time of entropy decoding; 0 for a codec that decodes in one step.
        reconstruct_ms: time of the decoder network, for the whole batch.
        expert_ms: time of the expert network, for the whole batch.
        answer_ms: time of coding the answer.
        total_ms: time from arrival until the answer is ready; more than the sum of the others if the frame waited for
            other frames of its batch.
        batch: number of frames that shared the expert network.
    """

    queue_ms: float = 0.0
    entropy_ms: float = 0.0
    reconstruct_ms: float = 0.0
    expert_ms: float = 0.0
    answer_ms: float = 0.0
    total_ms: float = 0.0
    batch: int = 1


@dataclass(frozen=True)
class ReferenceFacts:
    """Relation of a frame of a video to its reference, an earlier frame.

    Attributes:
        distance: number of frames from the reference to this one; 0 for a frame without a reference.
        unchanged: share, 0..1, of the latent positions whose integers are those of the reference.
    """

    distance: int
    unchanged: float


@dataclass(frozen=True)
class Perceived:
    """A frame after the networks of the receiver, before its answer is coded.

    Attributes:
        image_uint8_HW3: the reconstruction.
        classes_uint8_HW: class of every pixel; None if no expert gives a class map.
        concealed_HW: mask, bool (H, W), of the pixels whose part of the stream was lost; None if nothing was lost.
        stages: times of the stages.
        results: results of the experts of other tasks, by the name of the expert.
        reference: relation of a frame of a video to its reference; None for other pictures.
    """

    image_uint8_HW3: ImageArray
    classes_uint8_HW: ClassArray | None
    concealed_HW: npt.NDArray[np.bool_] | None
    stages: StageTimes
    results: Mapping[str, Any] = field(default_factory=dict)
    reference: ReferenceFacts | None = None


@dataclass(frozen=True)
class TaskResult:
    """Result of an expert of another task than segmentation, or of a further one.

    Attributes:
        expert: name of the expert, as in the receiver's `Welcome`.
        coded: the coded arrays of the result; see `Task.arrays`.
    """

    expert: str
    coded: tuple[CodedArray, ...]

    def arrays(self) -> dict[str, Values]:
        """Return the arrays by name, such as `corners`, `scores` and `classes` of boxes.

        Raises:
            LinkError: an array is damaged.
        """
        return {each.name: each.values() for each in self.coded}


@dataclass(frozen=True)
class Answer:
    """The answer to a frame.

    Attributes:
        number: number of the frame.
        height, width: size of the picture, and of the class map, in pixels.
        coding: coding of the class map, as the sender asked for it; `none` if no expert gives a class map.
        class_map: the coded class map; empty with the coding `none`.
        class_pixels: number of pixels of each class, up to the last class that has any.
        stages: times of the stages in the receiver.
        stream_bytes: number of bytes of the stream.
        concealed_pixels: number of pixels whose part of the stream was lost.
        results: results of the experts of other tasks, if the sender asked for them.
    """

    number: int
    height: int
    width: int
    coding: ClassMapCoding
    class_map: bytes
    class_pixels: tuple[int, ...]
    stages: StageTimes
    stream_bytes: int
    concealed_pixels: int
    results: tuple[TaskResult, ...] = ()

    def classes(self) -> ClassArray:
        """Return the class of every pixel, uint8 (height, width).

        Raises:
            LinkError: the bytes are not a class map of this size, or the coding is `none`.
        """
        return decode_class_map(self.class_map, self.coding, self.height, self.width)


@dataclass(frozen=True)
class Dropped:
    """A frame without an answer.

    Attributes:
        reason: reason, for programs.
        text: reason, for people.
        number: number of the frame; 0 if it is not known.
    """

    reason: Reason
    text: str
    number: int = 0


Outcome = Answer | Dropped
"""Outcome of a frame."""
