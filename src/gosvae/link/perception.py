"""What a receiver does with streams: decode them, and let the expert look at the pictures. No queue, no network.

Axis legend: B frames, 3 RGB channels, H and W pixels.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from io import BytesIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from gosvae import bitstream
from gosvae.codecs.base import ClassMapCodec, ImageCodec, LossTolerantCodec
from gosvae.codecs.latent import Latent
from gosvae.codecs.trained import TrainedCodec
from gosvae.errors import BitstreamError, ConfigError, ForeignStreamError, GosvaeError
from gosvae.experts.base import Expert
from gosvae.link.class_maps import ClassArray
from gosvae.tensors import ImageArray, image_to_tensor

log = logging.getLogger(__name__)

DEFAULT_MAX_PIXELS = 2**22
"""Of a frame: 2048x2048."""
BATCH_PIXELS = 2**21
"""That go through a network together, so that memory stays bounded; a larger frame goes alone."""


class Reason(StrEnum):
    """Why a frame has no result."""

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
class Trouble:
    """Why a frame has no result, for machines and for people."""

    reason: Reason
    text: str


@dataclass
class StageTimes:
    """Milliseconds in each stage; those of networks are of the whole batch.

    Attributes:
        queue_ms: from arrival until the frame's turn.
        entropy_ms: entropy decoding; 0 for a codec that does all in one.
        reconstruct_ms: the decoder network.
        expert_ms: the expert network.
        answer_ms: coding of the class map.
        total_ms: from arrival until the answer is ready; more than the sum of the others where a batch was waited for.
        batch: frames that shared the expert network.
    """

    queue_ms: float = 0.0
    entropy_ms: float = 0.0
    reconstruct_ms: float = 0.0
    expert_ms: float = 0.0
    answer_ms: float = 0.0
    total_ms: float = 0.0
    batch: int = 1


@dataclass(frozen=True)
class Perceived:
    """A frame's result.

    Attributes:
        image_uint8_HW3: the reconstruction.
        classes_uint8_HW: class of every pixel.
        concealed_HW: bool (H, W), pixels whose part of the stream was lost; None where nothing was.
        stages: how long it took.
    """

    image_uint8_HW3: ImageArray
    classes_uint8_HW: ClassArray
    concealed_HW: npt.NDArray[np.bool_] | None
    stages: StageTimes


@dataclass
class _Work:
    """A frame on its way through the stages."""

    stream: bytes
    incomplete: bool
    stages: StageTimes = field(default_factory=StageTimes)
    latent: Latent | None = None
    image: ImageArray | None = None
    concealed: npt.NDArray[np.bool_] | None = None
    classes: ClassArray | None = None
    trouble: Trouble | None = None


class Perception:
    """A codec and an expert, called with the frames of a batch. One thread at a time.

    Args:
        codec: that the senders have.
        expert: looks at the reconstructions; a codec that sends class maps (`ClassMapCodec`) needs none.
        device: where the expert is.
        max_pixels: of a frame; larger ones are refused before anything is decoded.

    Raises:
        ConfigError: an expert with more than 256 classes, or none where one is needed.
    """

    def __init__(
        self,
        codec: ImageCodec,
        expert: Expert | None,
        *,
        device: str | torch.device = "cpu",
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        self.codec, self.expert, self.device, self.max_pixels = codec, expert, torch.device(device), max_pixels
        if isinstance(codec, ClassMapCodec):
            self.class_names, self.expert_name = tuple(codec.class_names), codec.name
        elif expert is None:
            raise ConfigError(f"{codec.name!r} sends pictures, and there is no expert to look at them")
        else:
            self.class_names, self.expert_name = expert.info.class_names, expert.info.name
        if len(self.class_names) > 256:
            raise ConfigError(f"{self.expert_name!r} has {len(self.class_names)} classes: a class map holds up to 256")

    @property
    def fingerprint(self) -> bytes:
        """Of the codec, 8 bytes; empty for a classical one."""
        return self.codec.fingerprint if isinstance(self.codec, TrainedCodec) else b""

    def __call__(self, frames: Sequence[tuple[bytes, bool]]) -> list[Perceived | Trouble]:
        """Results in the order of the frames; one that cannot be decoded takes no other with it.

        Args:
            frames: a stream each, and whether slices of it are missing.
        """
        works = [_Work(stream, incomplete) for stream, incomplete in frames]
        for work in works:
            self._guarded(self._unpack, [work])
        for group in _alike((w for w in works if w.latent is not None and w.trouble is None), _shape_of_latent):
            self._guarded(self._reconstruct, group)
        ready = [w for w in works if w.image is not None and w.classes is None and w.trouble is None]
        for group in _alike(ready, _shape_of_image):
            self._guarded(self._perceive, group)
        return [self._result(work) for work in works]

    def _result(self, work: _Work) -> Perceived | Trouble:
        if work.trouble is not None:
            return work.trouble
        assert work.image is not None
        assert work.classes is not None
        return Perceived(work.image, work.classes, work.concealed, work.stages)

    def _guarded(self, stage: Callable[[Sequence[_Work]], None], group: Sequence[_Work]) -> None:
        """Run a stage; where a batch fails, run its frames alone, so that only those that fail are refused."""
        try:
            stage(group)
        except Exception as error:
            if len(group) > 1:
                for work in group:
                    self._guarded(stage, [work])
                return
            group[0].trouble = _trouble(error)

    def _unpack(self, group: Sequence[_Work]) -> None:
        (work,) = group
        began_s = time.perf_counter()
        if isinstance(self.codec, TrainedCodec):
            work.latent = self._latent(self.codec, work)
            work.stages.entropy_ms = _ms_since(began_s)
            return
        self._check_picture(work.stream)
        if work.incomplete:
            if not isinstance(self.codec, LossTolerantCodec):
                raise _IncompleteError(f"slices are missing, and {self.codec.name} cannot do without them")
            concealed = self.codec.decompress_damaged(work.stream)
            work.image = concealed.image_uint8_HW3
            work.concealed = concealed.concealed_HW if concealed.damaged else None
            work.stages.reconstruct_ms = _ms_since(began_s)
        elif isinstance(self.codec, ClassMapCodec):
            work.classes = self.codec.class_map(work.stream)
            work.stages.entropy_ms = _ms_since(began_s)
            work.image = self.codec.decompress(work.stream)
        else:
            work.image = self.codec.decompress(work.stream)
            work.stages.reconstruct_ms = _ms_since(began_s)

    def _latent(self, codec: TrainedCodec, work: _Work) -> Latent:
        """Take a stream apart, which happens only here, and decode it."""
        stream = bitstream.salvage(work.stream) if work.incomplete else bitstream.unpack_slices(work.stream)
        self._check_size(stream.header.height, stream.header.width)
        if work.incomplete and not isinstance(codec, LossTolerantCodec):
            raise _IncompleteError(f"slices are missing, and {codec.name} cannot do without them")
        latent = codec.decode_stream(stream)
        if latent.damaged:
            work.concealed = codec.concealed_pixels(latent)
        return latent

    def _check_size(self, height: int, width: int) -> None:
        if height * width > self.max_pixels:
            raise _TooLargeError(f"a frame of {width}x{height} pixels: this receiver takes {self.max_pixels}")

    def _check_picture(self, data: bytes) -> None:
        """The size that a classical picture announces, as far as Pillow knows the format."""
        try:
            with Image.open(BytesIO(data)) as image:
                width, height = image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return  # the codec says what is wrong
        self._check_size(height, width)

    def _reconstruct(self, group: Sequence[_Work]) -> None:
        began_s = time.perf_counter()
        assert isinstance(self.codec, TrainedCodec)
        images = self.codec.reconstruct_batch([work.latent for work in group if work.latent is not None])
        for work, image in zip(group, images, strict=True):
            work.image, work.stages.reconstruct_ms = image, _ms_since(began_s)

    def _perceive(self, group: Sequence[_Work]) -> None:
        began_s = time.perf_counter()
        assert self.expert is not None
        x_hat_B3HW = torch.cat([image_to_tensor(work.image) for work in group if work.image is not None])
        classes_BHW = self.expert.class_map(x_hat_B3HW.to(self.device)).to(torch.uint8).cpu().numpy()
        for work, classes_HW in zip(group, classes_BHW, strict=True):
            work.classes, work.stages.expert_ms, work.stages.batch = classes_HW, _ms_since(began_s), len(group)


class _TooLargeError(GosvaeError):
    """More pixels than the receiver takes."""


class _IncompleteError(GosvaeError):
    """Slices are missing that the codec cannot do without."""


def _trouble(error: Exception) -> Trouble:
    """The reason behind an exception; a defect is logged and told without its details."""
    match error:
        case ForeignStreamError():
            return Trouble(Reason.FOREIGN, str(error))
        case BitstreamError():
            return Trouble(Reason.DAMAGED, str(error))
        case _TooLargeError():
            return Trouble(Reason.TOO_LARGE, str(error))
        case _IncompleteError():
            return Trouble(Reason.INCOMPLETE, str(error))
        case GosvaeError():
            return Trouble(Reason.FAILED, str(error))
    log.error("a frame failed", exc_info=error)
    return Trouble(Reason.FAILED, "the receiver failed on this frame and logged why")


def _shape_of_latent(work: _Work) -> tuple[object, int]:
    """Return what frames of one batch share, and the pixels of this one."""
    assert work.latent is not None
    return work.latent.symbols.shape, work.latent.height * work.latent.width


def _shape_of_image(work: _Work) -> tuple[object, int]:
    assert work.image is not None
    return work.image.shape, work.image.shape[0] * work.image.shape[1]


def _alike(works: Iterable[_Work], shape: Callable[[_Work], tuple[object, int]]) -> list[list[_Work]]:
    """Frames of one shape together, of at most `BATCH_PIXELS` pixels a group."""
    groups: list[list[_Work]] = []
    open_groups: dict[object, list[_Work]] = {}
    for work in works:
        key, pixels = shape(work)
        group = open_groups.get(key)
        if group is None or (len(group) + 1) * pixels > BATCH_PIXELS:
            group = open_groups[key] = []
            groups.append(group)
        group.append(work)
    return groups


def _ms_since(began_s: float) -> float:
    return 1000.0 * (time.perf_counter() - began_s)
