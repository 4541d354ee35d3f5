"""Two layers in one stream: a task layer for perception models, and a faithful picture as an AV1 frame.

Axis legend: H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from gosvae import bitstream
from gosvae.codecs.allocation import DETAIL_QUALITY, QUALITY_STEP, TASK_LEVEL, Rate, layers_within, rate_of_level
from gosvae.codecs.av1 import QUALITIES, Tuning
from gosvae.codecs.base import Concealed, LossTolerantCodec, RateControlledCodec
from gosvae.codecs.detail import REDUCTIONS, Detail, DetailSearch, decode_detail, last_chain, quality_of, structure
from gosvae.codecs.fusion import Fusion, Selection
from gosvae.codecs.rate_search import check_smallest
from gosvae.codecs.scene import SceneStatistics, channel_means, reduced
from gosvae.codecs.slices import Purpose, check_detail_slices, check_purpose
from gosvae.codecs.variable import VariableRateCodec, VariableRateOptions
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, RateError
from gosvae.metrics import mean_squared_error
from gosvae.tensors import ImageArray, check_image
from gosvae.units import kib

_SPEEDS = (10, 9, 6, 4, 2, 0)
"""Speed of the AV1 encoder at each effort; larger efforts have the last one."""
_TRIES = (2, 3, 8)
"""Number of qualities that the search for a budget tries at each effort; larger efforts have the last one."""
_GOOD_ENOUGH = (0, 12, 30)
"""Quality at full size from which a smaller size is not tried, at each effort; larger efforts have the last one."""


@dataclass(frozen=True)
class LayeredOptions(VariableRateOptions):
    """Options of a codec of two layers.

    The options of `VariableRateOptions` hold for both layers: the levels 0 to 255 go from the smallest task layer to
    the largest detail layer, and the effort also sets the speed of the AV1 encoder. Slices and entropy model are those
    of the task layer.

    Attributes:
        purpose: `machine` spends the bytes where perception models gain most, `people` on a faithful picture alone,
            `both` on a task layer and a faithful picture. `auto` is `machine` for pictures like those that the task
            layer was trained for, `people` for others, and `both` in doubt (`SceneStatistics`), or with a budget
            `machine`.
        detail_slices: number of slices of the detail layer, 1..8. Each doubles the bytes of the layer, and a stream
            that is cut behind it shows the picture so far. Several slices take more bytes than one of equal quality.

    Raises:
        ConfigError: as `VariableRateOptions`; or the purpose or the number of slices does not exist.
    """

    purpose: Purpose = "auto"
    detail_slices: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_purpose(self.purpose)
        check_detail_slices(self.detail_slices)


class LayeredCodec(RateControlledCodec, LossTolerantCodec):
    """Use this when the budget may be large, when people look at the pictures too, or when they may show anything.

    Compared with `VariableRateCodec`, whose streams it writes where a task layer alone is best, its quality rises with
    every byte up to that of AV1, and a relay can cut its streams (`truncate`). It falls back on AV1 alone, without the
    boxes of AVIF, where no task layer helps.

    Args:
        task: codec of the task layer.
        options: rate, purpose, and options for writing streams.
        fusion: rule by which the receiver makes one picture of two; None means `Selection`.
        scene: statistics of the pictures that the task layer was trained for; None means that `auto` is `machine`.
    """

    def __init__(
        self,
        task: VariableRateCodec,
        *,
        options: LayeredOptions | None = None,
        fusion: Fusion | None = None,
        scene: SceneStatistics | None = None,
    ) -> None:
        self.task, self.options = task, options or LayeredOptions()
        self.fusion, self.scene = fusion or Selection(), scene
        self.fingerprint, self.device = task.fingerprint, task.device
        effort = self.options.effort
        self.good_enough = _GOOD_ENOUGH[min(effort, len(_GOOD_ENOUGH) - 1)]
        self.speed, self.tries = _SPEEDS[min(effort, len(_SPEEDS) - 1)], _TRIES[min(effort, len(_TRIES) - 1)]

    @property
    def name(self) -> str:
        return f"layered:{self.task.name}"

    @property
    def parameter_count(self) -> int:
        return self.task.parameter_count

    def payload_bytes(self, data: bytes) -> int:
        return bitstream.payload_bytes(data)

    def purpose_of(self, image_uint8_HW3: ImageArray) -> Purpose:
        """Return whom an image is for: the purpose of the options, or for `auto` what the picture says."""
        return self._encoding(image_uint8_HW3).purpose

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        """Return the stream of an image within the budget, or at the level, or at the default of its purpose.

        Raises:
            RateError: a budget was given, and the smallest stream takes more.
            ShapeError, ImageError: see `VariableRateCodec.analyse`.
        """
        if self.options.budget_bytes is not None:
            return self.compress_to_budget(image_uint8_HW3, self.options.budget_bytes)
        encoding = self._encoding(image_uint8_HW3)
        if self.options.level is not None:
            return encoding.at(rate_of_level(self.options.level, encoding.purpose))
        task_level = {"machine": self.task.level, "both": TASK_LEVEL}.get(encoding.purpose)
        return encoding.at(Rate(task_level, None if encoding.purpose == "machine" else DETAIL_QUALITY))

    def compress_smallest(self, image_uint8_HW3: ImageArray) -> bytes:
        """See `RateControlledCodec.compress_smallest`: the smallest task layer, or for people a smaller frame."""
        return self._encoding(image_uint8_HW3).smallest()

    def compress_to_budget(self, image_uint8_HW3: ImageArray, budget_bytes: int) -> bytes:
        """Return the stream of the best quality, for the purpose, that takes at most `budget_bytes`.

        The layers follow from the bytes per pixel (`layers_within`). The detail layer gets what the task layer leaves;
        where no frame fits, all bytes are the task layer's.

        Raises:
            RateError: the smallest stream takes more.
        """
        return self._encoding(image_uint8_HW3).within(budget_bytes)

    def _encoding(self, image_uint8_HW3: ImageArray) -> _Encoding:
        return _Encoding(self, check_image(image_uint8_HW3))

    def decompress(self, data: bytes) -> ImageArray:
        return self._shown(bitstream.unpack_slices(data)).image_uint8_HW3

    def decompress_damaged(self, data: bytes) -> Concealed:
        """See `LossTolerantCodec.decompress_damaged`.

        Where a slice of the detail layer is intact no pixel is concealed. Where none is, the picture is that of the
        task layer.
        """
        return self._shown(bitstream.salvage(data))

    def _shown(self, stream: bitstream.Stream) -> Concealed:
        """Return the picture of a stream, as far as its slices are intact."""
        header = stream.header
        whole = np.zeros((header.height, header.width), np.bool_)
        if header.entropy_model_id == EntropyModelId.AV1_STILL:
            bitstream.check_fingerprint(header, self.fingerprint)
            if stream.detail_count or stream.layout != "bands":
                raise BitstreamError("damaged: the header of a picture alone announces a task layer")
            detail = self._last_detail(stream.slices, header)
            if detail is None:
                raise BitstreamError("damaged: none of the pictures of the stream is intact")
            return Concealed(self.fusion(None, detail), whole, stream.damaged)
        latent = self.task.decode_stream(stream) if stream.task.payloads else None
        detail = self._last_detail(stream.detail, header)
        if detail is None:
            if latent is None:
                raise BitstreamError("damaged: no slice of the task layer is intact, and none of the detail layer")
            return Concealed(self.task.reconstruct(latent), self.task.concealed_pixels(latent), stream.damaged)
        base = self.task.reconstruct(latent) if latent is not None and self.fusion.needs_base else None
        return Concealed(self.fusion(base, detail), whole, stream.damaged)

    def _last_detail(self, slices: Sequence[bytes | None], header: bitstream.Header) -> Detail | None:
        """Return the picture of the last slice that is intact, with all slices that its picture builds on."""
        shown: Detail | None = None
        for payload in last_chain(slices):
            before = None if shown is None else shown.image_uint8_HW3
            shown = decode_detail(payload, header.height, header.width, before)
        return shown


@dataclass(frozen=True)
class LayerBytes:
    """Bytes of the layers of a stream, without header and checksums; 0 for a layer that is not there."""

    task_bytes: int
    detail_bytes: int

    def __str__(self) -> str:
        if not self.detail_bytes:
            return "a task layer for perception models"
        faithful = f"a faithful picture of {kib(self.detail_bytes):.2f} KiB"
        return f"a task layer of {kib(self.task_bytes):.2f} KiB and {faithful}" if self.task_bytes else faithful


def layers_of(data: bytes) -> LayerBytes:
    """Return the layers of an intact stream.

    Raises:
        BitstreamError: as `gosvae.bitstream.unpack_slices`.
    """
    stream = bitstream.unpack_slices(data)
    if stream.header.entropy_model_id == EntropyModelId.AV1_STILL:
        return LayerBytes(0, sum(map(len, stream.payloads)))
    return LayerBytes(sum(map(len, stream.task.payloads)), sum(len(payload or b"") for payload in stream.detail))


class _Encoding:
    """One image on its way to a stream; its latent is made when it is needed first, and once."""

    def __init__(self, codec: LayeredCodec, image_uint8_HW3: ImageArray) -> None:
        self._codec, self._image = codec, image_uint8_HW3
        self._height, self._width = image_uint8_HW3.shape[:2]

    @cached_property
    def latent(self) -> Tensor:
        """Latent of the task layer before any rate."""
        return self._codec.task.analyse(self._image)

    @cached_property
    def purpose(self) -> Purpose:
        """Purpose of the options, or what the picture says."""
        chosen, scene, task = self._codec.options.purpose, self._codec.scene, self._codec.task
        if chosen != "auto" or scene is None:
            return "machine" if chosen == "auto" else chosen
        small = reduced(self._image)
        latent_1Dhw = self.latent if small is self._image else task.analyse(small)
        score = scene.score(channel_means(task, latent_1Dhw))
        return "machine" if score <= scene.likely else "both" if score <= scene.possible else "people"

    def at(self, rate: Rate) -> bytes:
        """Return the stream at a rate."""
        task_stream = b"" if rate.task_level is None else self._at_level(rate.task_level)
        if rate.quality is None:
            return task_stream
        count = self._codec.options.detail_slices
        qualities = [max(QUALITIES.start, rate.quality - QUALITY_STEP * n) for n in reversed(range(count))]
        details: list[bytes] = []
        picture: ImageArray | None = None
        for quality in qualities:
            search = self._search(self.purpose, picture)
            details.append(search.slice_of(1, quality))
            if len(details) < count:
                picture = self._shown(details[-1], picture)
        return self._joined(task_stream, details)

    def within(self, budget_bytes: int) -> bytes:
        """Return the best stream within a budget; see `LayeredCodec.compress_to_budget`."""
        purpose = self.purpose
        if purpose == "both" and self._codec.options.purpose == "auto":
            purpose = "machine"  # in doubt the budget decides: a large one is a picture's
        layers = layers_within(budget_bytes, self._height * self._width, purpose)
        if layers != "task":
            task_stream = self._at_level(TASK_LEVEL) if layers == "both" else b""
            room = max(1, budget_bytes)
            for count in range(self._codec.options.detail_slices, 0, -1):
                around = len(self._joined(task_stream, [bytes(room)] * count)) - count * room
                details = self._best_details(budget_bytes - around, count, purpose)
                if details:
                    return self._joined(task_stream, details)
        data = self._task_stream(budget_bytes)
        if len(data) <= budget_bytes:
            return data
        return check_smallest(self._codec.name, self._image.shape, self.smallest(), budget_bytes)

    def smallest(self) -> bytes:
        """Return the smallest stream; see `LayeredCodec.compress_smallest`."""
        streams = [self._codec.task.compress_smallest(self._image)]
        if self.purpose == "people":
            search = self._search("people")
            streams += [self._joined(b"", [search.slice_of(reduction, QUALITIES.start)]) for reduction in REDUCTIONS]
        return min(streams, key=len)

    def _at_level(self, level: int) -> bytes:
        """Return the stream of the task layer at a level."""
        task = self._codec.task
        return task.encode(task.quantise(self.latent, self._height, self._width, level))

    def _task_stream(self, budget_bytes: int) -> bytes:
        """Return the stream of the task layer within a budget, or the smallest one if none fits."""
        task = self._codec.task
        try:
            return task.compress_latent(self.latent, self._height, self._width, budget_bytes)
        except RateError:
            return task.compress_smallest(self._image)

    def _search(self, purpose: Purpose, before_uint8_HW3: ImageArray | None = None) -> DetailSearch:
        """Return a search for slices; see `DetailSearch`."""
        tuning: Tuning = "machine" if purpose == "machine" else "faithful"
        return DetailSearch(self._image, speed=self._codec.speed, tuning=tuning, before_uint8_HW3=before_uint8_HW3)

    def _shown(self, payload: bytes, before_uint8_HW3: ImageArray | None = None) -> ImageArray:
        """Return the picture of a slice."""
        return decode_detail(payload, self._height, self._width, before_uint8_HW3).image_uint8_HW3

    def _best_details(self, budget_bytes: int, count: int, purpose: Purpose) -> list[bytes]:
        """Return at most `count` slices of the detail layer within a budget; none if the first does not fit.

        Behind each slice the bytes so far are twice those before.
        """
        first = self._best_detail(budget_bytes >> count - 1, purpose)
        if first is None:
            return []
        details, used, picture = [first], len(first), self._shown(first)
        for shift in reversed(range(count - 1)):
            search = self._search(purpose, picture)
            payload = search.within(1, (budget_bytes >> shift) - used, tries=self._codec.tries)
            if payload is not None:
                details.append(payload)
                used += len(payload)
                picture = self._shown(payload, picture)
        return details

    def _best_detail(self, budget_bytes: int, purpose: Purpose) -> bytes | None:
        """Return the best slice with a whole picture of those that fit; None if none does.

        A smaller size is better if it has a smaller squared error and no less structure.
        """
        search = self._search(purpose)
        best: tuple[float, float, bytes] | None = None
        for reduction in REDUCTIONS:
            payload = search.within(reduction, budget_bytes, tries=self._codec.tries)
            if payload is None:
                continue
            if reduction == 1 and quality_of(payload) >= self._codec.good_enough:
                return payload
            shown = self._shown(payload)
            error, alike = mean_squared_error(self._image, shown), structure(self._image, shown)
            if best is not None and (error > best[0] or alike < best[1]):
                break  # smaller sizes only lose more
            best = error, alike, payload
        return None if best is None else best[2]

    def _joined(self, task_stream: bytes, details: Sequence[bytes]) -> bytes:
        """Return the stream of the slices of a detail layer, behind those of a task layer if there is one."""
        if task_stream:
            stream = bitstream.unpack_slices(task_stream)
            return bitstream.pack_slices(stream.header, [*stream.slices, *details], stream.layout, len(details))
        fingerprint = self._codec.fingerprint
        header = bitstream.Header(fingerprint, self._height, self._width, EntropyModelId.AV1_STILL)
        return bitstream.pack_slices(header, details)
