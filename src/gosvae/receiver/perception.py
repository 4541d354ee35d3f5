"""Decoding of streams and running of the experts on the pictures, in batches; without a queue or a connection.

Axis legend: B frames, 3 RGB channels, H and W pixels.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from gosvae import bitstream
from gosvae.codecs.announced import announced_pixels
from gosvae.codecs.base import ClassMapCodec, ImageCodec, LossTolerantCodec
from gosvae.codecs.latent import Latent
from gosvae.codecs.layered import LayeredCodec
from gosvae.codecs.sequence.codec import SequenceCodec, is_wrapped
from gosvae.codecs.sequence.decoder import SequenceDecoder
from gosvae.codecs.sequence.format import is_session
from gosvae.codecs.trained import TrainedCodec
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, ConfigError, ForeignStreamError, GosvaeError, MissingReferenceError
from gosvae.experts.base import Expert, TaskExpert
from gosvae.interruption import check_interruption
from gosvae.protocol.class_maps import ClassArray
from gosvae.protocol.frames import Dropped, Perceived, Reason, ReferenceFacts, StageTimes
from gosvae.tasks.base import Arrays
from gosvae.tasks.judges import Judges, Results
from gosvae.tensors import ImageArray, image_to_tensor

log = logging.getLogger(__name__)

LEAST_MAX_PIXELS = 2**21
"""Default of `max_pixels`, unless 4 times the size of the expert's pictures is more."""
LEAST_LARGE_PIXELS = 2**18
"""Number of pixels above which a frame is large, unless twice the size of the expert's pictures is more."""
BATCH_PIXELS = 2**21
"""Greatest number of pixels that go through a network together, which bounds the memory; a larger frame goes alone."""


MOST_SEQUENCES = 256
"""Greatest number of senders whose references are kept; those of the sender that was silent the longest are dropped
first."""


MOST_REFERENCE_BYTES = 2**28
"""Greatest number of bytes of the references of all senders."""


@dataclass
class _Work:
    """A frame on its way through the stages."""

    stream: bytes
    incomplete: bool
    sender: str = ""
    stages: StageTimes = field(default_factory=StageTimes)
    latent: Latent | None = None
    image: ImageArray | None = None
    concealed: npt.NDArray[np.bool_] | None = None
    classes: ClassArray | None = None
    reference: ReferenceFacts | None = None
    results: Results = field(default_factory=dict)
    dropped: Dropped | None = None


class Perception:
    """Codec and experts of a receiver, called with the frames of a batch; several threads may call it at the same time.

    Args:
        codec: codec that the senders use.
        expert: segmentation network that gives the class maps; None for a codec that sends class maps
            (`ClassMapCodec`), or if there are only `judges`.
        judges: further experts of any task, by name, whose results are sent besides the class map.
        device: device of the experts.
        max_pixels: greatest number of pixels of a frame; larger frames are dropped before anything is decoded. None
            means 2**21, or 4 times the size of the pictures that the experts were trained for if that is more.
        sequences: video codec of the same model, for senders of videos; None takes single pictures only.

    Attributes:
        large_pixels: number of pixels above which a frame is large, so that the engine processes it with low priority:
            2**18, or twice the size of the pictures that the experts were trained for if that is more.
        class_names: names of the classes of the class maps, in the order of their numbers.
        expert_name: names of all experts, for people.

    Raises:
        ConfigError: the expert has more than 256 classes, an expert is needed and there is none, there are judges for a
            codec that sends class maps, or `max_pixels` is below 1.
    """

    def __init__(
        self,
        codec: ImageCodec,
        expert: Expert | None,
        *,
        judges: Mapping[str, TaskExpert] | None = None,
        device: str | torch.device = "cpu",
        max_pixels: int | None = None,
        sequences: SequenceCodec | None = None,
    ) -> None:
        self._sequences, self._lock = sequences, threading.Lock()
        self._decoders: OrderedDict[str, tuple[SequenceDecoder, threading.Lock]] = OrderedDict()
        if max_pixels is not None and max_pixels < 1:
            raise ConfigError(f"frames of at most {max_pixels} pixels: expected at least 1", argument="max_pixels")
        self.codec, self.expert, self.device = codec, expert, torch.device(device)
        self.judges = Judges(judges or {})
        infos = [each.info for each in (expert, *self.judges.experts.values()) if each is not None]
        usual = max((info.input_height * info.input_width for info in infos), default=0)
        self.max_pixels = max(LEAST_MAX_PIXELS, 4 * usual) if max_pixels is None else max_pixels
        self.large_pixels = max(LEAST_LARGE_PIXELS, 2 * usual)
        self.class_names: tuple[str, ...] = () if expert is None else expert.info.class_names
        names = [*([] if expert is None else [expert.info.name]), *self.judges.experts]
        if isinstance(codec, ClassMapCodec):
            if judges:
                raise ConfigError(f"{codec.name!r} sends class maps, no pictures for {', '.join(judges)} to look at")
            self.class_names, names = tuple(codec.class_names), [codec.name]
        elif not names:
            raise ConfigError(f"{codec.name!r} sends pictures, and there is no expert to look at them")
        self.expert_name = ", ".join(names)
        if len(self.class_names) > 256:
            raise ConfigError(f"{self.expert_name!r} has {len(self.class_names)} classes: a class map holds up to 256")

    @property
    def fingerprint(self) -> bytes:
        """Fingerprint of the codec, 8 bytes; empty for a classical codec."""
        return self.codec.fingerprint if isinstance(self.codec, TrainedCodec | LayeredCodec) else b""

    def pixels(self, stream: bytes) -> int:
        """Return the number of pixels that a stream announces; 0 if its header cannot be read."""
        return announced_pixels(stream, files=not isinstance(self.codec, TrainedCodec | ClassMapCodec))

    @property
    def takes_videos(self) -> bool:
        """Whether this receiver decodes videos."""
        return self._sequences is not None

    def contained(self, data: bytes, height: int, width: int) -> bytes:
        """Return a frame of a video with a container around it.

        Args:
            data: bytes of the frame, which arrived without a container.
            height, width: size of the frame in pixels.
        """
        return data if self._sequences is None else self._sequences.wrapped([data], height, width)

    def is_sequence(self, stream: bytes) -> bool:
        """Return whether a stream is a frame of a video that this receiver decodes."""
        return self._sequences is not None and len(stream) > 2 and stream[2] == EntropyModelId.TEMPORAL_CONTEXT

    def __call__(
        self, frames: Sequence[tuple[bytes, bool]], senders: Sequence[str] | None = None
    ) -> list[Perceived | Dropped]:
        """Return the result of each frame, in their order; a frame that cannot be decoded does not affect the others.

        Args:
            frames: pairs of a stream and whether slices of it are missing.
            senders: name of the sender of each frame; frames of a video depend on earlier ones of the same sender.
        """
        names = [""] * len(frames) if senders is None else senders
        works = [_Work(*frame, name) for frame, name in zip(frames, names, strict=True)]
        for work in works:
            self._guarded(self._unpack, [work])
        for group in _alike((w for w in works if w.latent is not None and w.dropped is None), _shape_of_latent):
            self._guarded(self._reconstruct, group)
        ready = [w for w in works if w.image is not None and w.classes is None and w.dropped is None]
        for group in _alike(ready, _shape_of_image):
            self._guarded(self._perceive, group)
        return [self._result(work) for work in works]

    def arrays(self, perceived: Perceived) -> dict[str, Arrays]:
        """Return the results of the judges as arrays, by the name of the judge."""
        return self.judges.arrays(dict(perceived.results))

    def _result(self, work: _Work) -> Perceived | Dropped:
        if work.dropped is not None:
            return work.dropped
        assert work.image is not None
        return Perceived(work.image, work.classes, work.concealed, work.stages, work.results, work.reference)

    def _guarded(self, stage: Callable[[Sequence[_Work]], None], group: Sequence[_Work]) -> None:
        """Run a stage on a group; if it fails, run it on each frame alone, so that only failing frames are dropped.

        Raises:
            InterruptionError: the work is not wanted any more, see `gosvae.interruption`.
        """
        check_interruption()
        try:
            stage(group)
        except Exception as error:
            if len(group) > 1:
                for work in group:
                    self._guarded(stage, [work])
                return
            group[0].dropped = _dropped(error)

    def _unpack(self, group: Sequence[_Work]) -> None:
        (work,) = group
        began_s = time.perf_counter()
        if isinstance(self.codec, TrainedCodec):
            work.latent = self._latent(self.codec, work)
            work.stages.entropy_ms = _ms_since(began_s)
            return
        self._check_size(self.pixels(work.stream))
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
        self._check_size(stream.header.height * stream.header.width)
        if work.incomplete and not isinstance(codec, LossTolerantCodec):
            raise _IncompleteError(f"slices are missing, and {codec.name} cannot do without them")
        if self._sequences is not None and is_wrapped(stream):
            with self._lock:
                decoder, turn = self._decoder_of(work.sender, self._sequences)
            if not turn.acquire(blocking=False):  # a usual frame never waits for the thread of large ones
                raise _IncompleteError("a frame of another size of this video is still worked on")
            try:
                parts, header = self._sequences.unwrapped(stream), stream.header
                known = None if any(map(is_session, stream.payloads)) else decoder.header
                if known is not None and (known.height, known.width) != (header.height, header.width):
                    raise BitstreamError("damaged: a frame of a video has another size than its key frame")
                latent = decoder.decode_parts(parts)
                work.reference = ReferenceFacts(decoder.distance, decoder.unchanged)
            finally:
                turn.release()
            if latent.damaged:
                work.concealed = codec.concealed_pixels(latent)
            return latent
        latent = codec.decode_stream(stream)
        if latent.damaged:
            work.concealed = codec.concealed_pixels(latent)
        return latent

    def _decoder_of(self, sender: str, sequences: SequenceCodec) -> tuple[SequenceDecoder, threading.Lock]:
        """Return the decoder of a sender's video, and the lock under which it is used."""
        found = self._decoders.get(sender) or (sequences.decoder(), threading.Lock())
        self._decoders[sender] = found
        self._decoders.move_to_end(sender)
        while len(self._decoders) > MOST_SEQUENCES or (
            len(self._decoders) > 1
            and sum(decoder.n_bytes for decoder, _ in self._decoders.values()) > MOST_REFERENCE_BYTES
        ):
            self._decoders.popitem(last=False)
        return found

    def _check_size(self, pixels: int) -> None:
        if pixels > self.max_pixels:
            raise _TooLargeError(f"a frame of {pixels} pixels: this receiver takes {self.max_pixels}")

    def _reconstruct(self, group: Sequence[_Work]) -> None:
        began_s = time.perf_counter()
        assert isinstance(self.codec, TrainedCodec)
        images = self.codec.reconstruct_batch([work.latent for work in group if work.latent is not None])
        for work, image in zip(group, images, strict=True):
            work.image, work.stages.reconstruct_ms = image, _ms_since(began_s)

    def _perceive(self, group: Sequence[_Work]) -> None:
        began_s = time.perf_counter()
        x_hat_B3HW = torch.cat([image_to_tensor(work.image) for work in group if work.image is not None])
        x_hat_B3HW = x_hat_B3HW.to(self.device)
        if self.expert is not None:
            classes_BHW = self.expert.class_map(x_hat_B3HW).to(torch.uint8).cpu().numpy()
            for work, classes_HW in zip(group, classes_BHW, strict=True):
                work.classes = classes_HW
        for work, results in zip(group, self.judges.see_all(x_hat_B3HW), strict=True):
            work.results, work.stages.expert_ms, work.stages.batch = results, _ms_since(began_s), len(group)


class _TooLargeError(GosvaeError):
    """A frame with more pixels than the receiver takes."""


class _IncompleteError(GosvaeError):
    """A frame without slices that the codec needs."""


def _dropped(error: Exception) -> Dropped:
    """Return the reason behind an exception; a defect is logged, and its details are not sent."""
    match error:
        case MissingReferenceError():
            return Dropped(Reason.INCOMPLETE, str(error))
        case ForeignStreamError():
            return Dropped(Reason.FOREIGN, str(error))
        case BitstreamError():
            return Dropped(Reason.DAMAGED, str(error))
        case _TooLargeError():
            return Dropped(Reason.TOO_LARGE, str(error))
        case _IncompleteError():
            return Dropped(Reason.INCOMPLETE, str(error))
        case GosvaeError():
            return Dropped(Reason.FAILED, str(error))
    log.error("a frame failed", exc_info=error)
    return Dropped(Reason.FAILED, "the receiver failed on this frame and logged why")


def _shape_of_latent(work: _Work) -> tuple[object, int]:
    """Return the shape that frames of a batch share, and the number of pixels of this frame."""
    assert work.latent is not None
    return work.latent.symbols.shape, work.latent.height * work.latent.width


def _shape_of_image(work: _Work) -> tuple[object, int]:
    assert work.image is not None
    return work.image.shape, work.image.shape[0] * work.image.shape[1]


def _alike(works: Iterable[_Work], shape: Callable[[_Work], tuple[object, int]]) -> list[list[_Work]]:
    """Return the frames in groups of one shape, each of at most `BATCH_PIXELS` pixels."""
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
