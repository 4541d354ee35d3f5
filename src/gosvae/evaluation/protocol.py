"""Evaluation protocol: every codec on every image, real files, one confusion matrix over the data set.

The expert's map of an original is computed once for all codecs. The batch size is 1, so images may differ in size.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean, median
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from gosvae.codecs.base import ClassMapCodec, ImageCodec, RateControlledCodec, SendsObjects
from gosvae.datasets.base import Dataset, ObjectArray, Sample
from gosvae.errors import ConfigError, DatasetError, ImageError, RateError, unknown_name
from gosvae.evaluation.evaluation import ClassMapArray, Evaluation, KeptImage, Reconstruction
from gosvae.evaluation.features import FeatureExtractor
from gosvae.evaluation.fitting import check_classes, check_indices, check_objects, sends_objects
from gosvae.evaluation.judges import Verdicts
from gosvae.evaluation.results import gather_provenance
from gosvae.evaluation.rows import UNCOMPRESSED, ImageRow, Row, mean_of
from gosvae.evaluation.shots import ShotResamples, TaskCounts
from gosvae.evaluation.transmission import LinkSettings, Received, Sent, receive, send, transmit
from gosvae.experts.base import Expert, TaskExpert
from gosvae.metrics import PerceptualMetric, frechet_distance, mean_squared_error
from gosvae.seeding import numpy_generator, torch_generator
from gosvae.tasks.judges import Judges, Results
from gosvae.tensors import ImageArray, image_to_tensor
from gosvae.units import psnr_db, rate_bpp
from gosvae.walk import printable

T = TypeVar("T")
FeatureArray = npt.NDArray[np.float32]
"""Features of an image, (D,)."""
log = logging.getLogger(__name__)


@runtime_checkable
class ReportsZeroOrderBytes(Protocol):
    """A codec that can estimate the bytes of its indices at their own zero-order entropy."""

    def zero_order_bytes(self, data: bytes) -> float:
        """Return the estimated bytes of the indices of a stream, without header; see `metrics.zero_order_bits`."""


@dataclass(frozen=True)
class CodecEntry:
    """A codec at one setting.

    Attributes:
        label: name in tables, unique in an evaluation.
        codec: codec to measure.
        budget_bytes: largest number of bytes of each image's file, for which the quality is searched image by image. A
            sequence has one number for each image, in the order of the data set.
        match: label of an earlier entry whose file length, image by image, is the budget.
        curve: entries with the same curve are rate points of one codec, joined in plots and for BD-rate.
    """

    label: str
    codec: ImageCodec
    budget_bytes: int | Sequence[int] | None = None
    match: str | None = None
    curve: str | None = None


def evaluate(
    codecs: Sequence[CodecEntry],
    dataset: Dataset,
    expert: Expert | None,
    *,
    judges: Mapping[str, TaskExpert] | None = None,
    perceptual: PerceptualMetric | None = None,
    frechet: FeatureExtractor | None = None,
    use_labels: bool = True,
    keep_images: Sequence[int] = (),
    link: LinkSettings | None = None,
    progress: bool | None = None,
    skip_damaged: bool = False,
    on_image: Callable[[Sequence[ImageRow]], None] | None = None,
    generator: np.random.Generator | None = None,
) -> Evaluation:
    """Measure codecs on a data set, in one pass over its images.

    The first row is the uncompressed reference: the expert on the originals.

    Args:
        codecs: codecs in the order of the table; an entry that matches another comes after it.
        dataset: images, with or without labels.
        expert: segmentation network of the receiver; None measures no class maps, and needs `judges`.
        judges: experts of any task by name, whose agreement with their own results on the originals is measured too.
        perceptual: distance of images in [0, 1], such as LPIPS.
        frechet: feature network for the Fréchet distance of each codec's images from the originals.
        use_labels: whether to compare with labels, if there are any. The agreement with the expert's map
            of the original is always measured.
        keep_images: indices of images whose pixels and class maps are kept for pictures.
        link: link that every stream is sent over; bytes and budgets are then those on the air, with packet headers and
            repair packets.
        progress: whether to show a bar on stderr; None shows it on a terminal only.
        skip_damaged: whether an image that cannot be read is left out, with a warning and a line in
            `Provenance.skipped`, instead of ending the evaluation.
        on_image: function that is called with the rows of every image as soon as it is measured.
        generator: random numbers that resample the shots for the intervals of mIoU and agreement, the same resamples
            for all rows. By default it has a fixed seed, so that an evaluation gives the same intervals again.

    Raises:
        ConfigError: the data set is empty, entries do not fit together, or the classes of labels and expert differ.
        ImageError, DatasetError: an image cannot be read and `skip_damaged` is False, or no image can be read.
    """
    if expert is None and not judges:
        raise ConfigError("an evaluation needs an expert or judges", argument="expert")
    _check_entries(codecs, len(dataset), 0 if expert is None else len(expert.info.class_names))
    check_indices(dataset, keep_images)
    check_objects((entry.codec for entry in codecs), dataset)
    if link is not None and any(isinstance(entry.codec, ClassMapCodec) for entry in codecs):
        raise ConfigError(
            "a class map of which a part is lost shows nothing: leave out label-map where there is a channel"
        )
    if frechet is not None and len(dataset) < 2:
        raise ConfigError(f"a Fréchet distance needs at least 2 images, {dataset.name!r} has {len(dataset)}")
    use_labels = use_labels and expert is not None
    if use_labels and dataset.has_labels and expert is not None:
        check_classes(dataset, expert)
    viewer = _Viewer(expert, judges or {}, perceptual, frechet)
    reference, own = TaskCounts(viewer.class_count), Verdicts(viewer.judges)
    tallies = {entry.label: _Tally(entry, viewer, link) for entry in codecs}
    real: list[FeatureArray] = []
    kept: dict[int, KeptImage] = {}
    sizes: list[tuple[int, int]] = []
    skipped: list[str] = []
    hidden = None if progress is None else not progress
    for index in tqdm(range(len(dataset)), desc="evaluate", unit="image", disable=hidden, file=sys.stderr):
        try:
            sample = dataset[index]
        except (ImageError, DatasetError) as error:
            if not skip_damaged:
                raise
            skipped.append(printable(str(error)))
            log.warning("left out: %s", skipped[-1])
            continue
        sample = replace(sample, name=printable(sample.name))
        if not use_labels:
            sample = replace(sample, labels_uint8_HW=None)
        original = viewer.view(sample.image_uint8_HW3)
        shot = dataset.shot(index)
        reference.update(shot, original.class_map_HW, original.class_map_HW, sample.labels_uint8_HW)
        own.update(original.results, original.results)
        if original.features_D is not None:
            real.append(original.features_D)
        reconstructions = []
        for tally in tallies.values():
            match, budget = tally.entry.match, tally.entry.budget_bytes
            if match is not None:
                budget = tallies[match].rows[-1].total_bytes
            elif isinstance(budget, Sequence):
                budget = budget[index]
            objects_HW = dataset.objects(index) if sends_objects(tally.entry.codec) else None
            reconstructions.append(tally.measure(sample, shot, original, budget, objects_HW))
        sizes.append((sample.image_uint8_HW3.shape[0], sample.image_uint8_HW3.shape[1]))
        if index in keep_images:
            drawn = viewer.judges.draw(sample.image_uint8_HW3, original.results)
            class_map_HW = original.class_map_HW if expert is not None else None
            kept[index] = KeptImage(sample.name, sample.image_uint8_HW3, class_map_HW, tuple(reconstructions), drawn)
        if on_image is not None:
            on_image([tally.rows[-1] for tally in tallies.values()])
    if not sizes:
        raise DatasetError(
            f"none of the {len(skipped)} images of {dataset.name!r} can be read; the first: {skipped[0]}"
        )
    resamples = ShotResamples(reference.shots, generator or numpy_generator("shots"))
    return Evaluation(
        provenance=replace(
            gather_provenance(
                dataset.name, expert, viewer.judges.experts, sizes, perceptual.name if perceptual else None
            ),
            channel=link.description if link else None,
            skipped=tuple(skipped),
            shots=len(reference.shots),
        ),
        rows=(
            Row(UNCOMPRESSED, UNCOMPRESSED, len(sizes), **viewer.values(reference, resamples), tasks=own.values()),
            *(tally.row(real, resamples) for tally in tallies.values()),
        ),
        images=tuple(row for rows in zip(*(t.rows for t in tallies.values()), strict=True) for row in rows),
        kept=tuple(kept[index] for index in keep_images if index in kept),
    )


@dataclass(frozen=True)
class _View:
    """An image as tensor, the expert's map of it, and its features for the Fréchet distance."""

    x_B3HW: Tensor
    class_map_HW: ClassMapArray
    features_D: FeatureArray | None
    results: Results


class _Viewer:
    """Experts, perceptual metric and feature network, on the device of the expert."""

    def __init__(
        self,
        expert: Expert | None,
        judges: Mapping[str, TaskExpert],
        perceptual: PerceptualMetric | None,
        frechet: FeatureExtractor | None,
    ) -> None:
        self.expert, self.judges = expert, Judges(judges)
        self.perceptual = perceptual
        self.frechet = frechet
        self.class_count = 1 if expert is None else len(expert.info.class_names)
        first = next(iter(judges.values())) if expert is None else expert
        self.device = next(chain(first.parameters(), first.buffers()), torch.empty(0)).device

    @torch.inference_mode()
    def view(self, image_uint8_HW3: ImageArray) -> _View:
        x_B3HW = image_to_tensor(image_uint8_HW3).to(self.device)
        features_D = None if self.frechet is None else self.frechet(x_B3HW)[0].cpu().numpy()
        results = self.judges.see(x_B3HW)
        if self.expert is None:
            return _View(x_B3HW, np.zeros(image_uint8_HW3.shape[:2], np.int16), features_D, results)
        class_map_HW = self.expert.class_map(x_B3HW)[0].cpu().numpy().astype(np.int16)
        return _View(x_B3HW, class_map_HW, features_D, results)

    def values(self, counts: TaskCounts, resamples: ShotResamples) -> dict[str, Any]:
        """Return the values of the class maps for a `Row`; none without a segmentation network."""
        return {} if self.expert is None else counts.values(resamples)

    @torch.inference_mode()
    def distance(self, view: _View, other: _View) -> float | None:
        return None if self.perceptual is None else float(self.perceptual(view.x_B3HW, other.x_B3HW).item())


class _Tally:
    """One codec entry and its results so far."""

    def __init__(self, entry: CodecEntry, viewer: _Viewer, link: LinkSettings | None) -> None:
        self.entry = entry
        self.viewer = viewer
        self.link = link
        self.received: list[Received] = []
        self.counts, self.verdicts = TaskCounts(viewer.class_count), Verdicts(viewer.judges)
        self.rows: list[ImageRow] = []
        self.features: list[FeatureArray] = []
        self.zero_order_bytes: list[float] = []
        self.encode_ms: list[float] = []
        self.decode_ms: list[float] = []

    def measure(
        self, sample: Sample, shot: str, original: _View, budget_bytes: int | None, objects_HW: ObjectArray | None
    ) -> Reconstruction:
        """Compress and decompress an image, measure the result, and return the reconstruction."""
        codec = self.entry.codec
        sent = self._encode(sample.image_uint8_HW3, budget_bytes, objects_HW)
        data, image = sent.data, self._decode(sent, sample.image_uint8_HW3.shape[:2])
        if isinstance(codec, ReportsZeroOrderBytes):
            self.zero_order_bytes.append(codec.zero_order_bytes(data))
        seen, mse, lpips = None, None, None
        if isinstance(codec, ClassMapCodec):
            class_map_HW = codec.class_map(data).astype(np.int16)  # its colours are not measured as a picture
        else:
            seen, mse = self.viewer.view(image), mean_squared_error(sample.image_uint8_HW3, image)
            class_map_HW, lpips = seen.class_map_HW, self.viewer.distance(original, seen)
        if seen is not None:
            self.verdicts.update(original.results, seen.results)
        if seen is not None and seen.features_D is not None:
            self.features.append(seen.features_D)
        agreement = self.counts.update(shot, class_map_HW, original.class_map_HW, sample.labels_uint8_HW)
        miou = agreement.mean_iou()
        assert miou is not None  # the map of the original has no ignored pixels
        row = ImageRow(
            label=self.entry.label,
            image=sample.name,
            height=image.shape[0],
            width=image.shape[1],
            total_bytes=sent.air_bytes,
            payload_bytes=codec.payload_bytes(data),
            agreement_accuracy=None if self.viewer.expert is None else agreement.pixel_accuracy() or 0.0,
            agreement_miou=None if self.viewer.expert is None else miou.value,
            mse=mse,
            psnr_db=None if mse is None else psnr_db(mse),
            lpips=lpips,
            over_budget=sent.over_budget,
            codestream_bytes=codec.codestream_bytes(data) if self.link is None else None,
        )
        self.rows.append(row)
        drawn = {} if seen is None else self.viewer.judges.draw(image, seen.results)
        shown = class_map_HW if self.viewer.expert is not None else None
        return Reconstruction(self.entry.label, image, shown, row, drawn)

    @torch.inference_mode()
    def _encode(self, image: ImageArray, budget_bytes: int | None, objects_HW: ObjectArray | None) -> Sent:
        """Return the stream of an image in its datagrams; without a link, one datagram holds the whole file."""
        codec = self.entry.codec
        assert budget_bytes is None or isinstance(codec, RateControlledCodec)  # checked by _check_entries
        if self.link is not None:
            return send(codec, image, self.link, budget_bytes)
        if objects_HW is not None:
            assert isinstance(codec, SendsObjects)
            data = codec.compress_objects(objects_HW)  # without a time: nobody has to see the objects
            return Sent(data, (data,))
        if budget_bytes is None:
            data = _timed(self.encode_ms, lambda: codec.compress(image))
            return Sent(data, (data,))
        assert isinstance(codec, RateControlledCodec)
        try:
            data, over_budget = codec.compress_to_budget(image, budget_bytes), False
        except RateError:
            data, over_budget = codec.compress_smallest(image), True
        return Sent(data, (data,), over_budget)

    def _decode(self, sent: Sent, size_hw: tuple[int, int]) -> ImageArray:
        """Return the picture at the receiver."""
        codec = self.entry.codec
        if self.link is None:
            return _timed(self.decode_ms, lambda: codec.decompress(sent.data))
        # The same random numbers for every codec, so that all meet the same losses.
        generator = torch_generator(self.link.seed, "link", len(self.rows))
        frame = transmit(sent.datagrams, self.link.channel, generator)
        self.received.append(_timed(self.decode_ms, lambda: receive(codec, frame, size_hw)))
        return self.received[-1].image_uint8_HW3

    def row(self, real: Sequence[FeatureArray], resamples: ShotResamples) -> Row:
        """Return the row of the codec; `real` has the features of the originals."""
        rows, zero_order, features = self.rows, self.zero_order_bytes, self.features
        network = self.viewer.frechet.name if self.viewer.frechet is not None and len(features) > 1 else None
        return Row(
            label=self.entry.label,
            codec=self.entry.codec.name,
            image_count=len(rows),
            curve=self.entry.curve,
            total_bytes=fmean(row.total_bytes for row in rows),
            payload_bytes=fmean(row.payload_bytes for row in rows),
            zero_order_bytes=fmean(zero_order) if zero_order else None,
            bpp=fmean(rate_bpp(row.total_bytes, row.height, row.width) for row in rows),
            **self.viewer.values(self.counts, resamples),
            tasks=self.verdicts.values(),
            mse=mean_of(row.mse for row in rows),
            psnr_db=mean_of(row.psnr_db for row in rows),
            lpips=mean_of(row.lpips for row in rows),
            frechet_distance=frechet_distance(np.stack(real), np.stack(features)) if len(features) > 1 else None,
            frechet_network=network,
            parameters=self.entry.codec.parameter_count,
            encode_ms=median(self.encode_ms) if self.encode_ms else None,
            decode_ms=median(self.decode_ms),
            over_budget_images=sum(row.over_budget for row in rows),
            damaged_images=sum(received.outcome != "whole" for received in self.received),
            lost_images=sum(received.outcome == "lost" for received in self.received),
            concealed_share=mean_of(received.concealed_share for received in self.received),
            codestream_bytes=mean_of(row.codestream_bytes for row in rows),
        )


@torch.inference_mode()
def _timed(times_ms: list[float], call: Callable[[], T]) -> T:
    start = time.perf_counter()
    result = call()
    times_ms.append(1000.0 * (time.perf_counter() - start))
    return result


def _check_entries(codecs: Sequence[CodecEntry], image_count: int, class_count: int) -> None:
    """Refuse entries that would fail, or give meaningless results, only after minutes of work."""
    earlier: list[str] = []
    for entry in codecs:
        if entry.label in (*earlier, UNCOMPRESSED):
            raise ConfigError(f"two rows are called {entry.label!r}: give each codec entry a label of its own")
        if entry.match is not None and entry.match not in earlier:
            raise ConfigError(
                f"{entry.label!r} comes after what it matches: {unknown_name('label', entry.match, earlier)}"
            )
        if entry.match is not None and entry.budget_bytes is not None:
            raise ConfigError(f"{entry.label!r} has a budget and matches {entry.match!r}: choose one of them")
        if isinstance(entry.budget_bytes, Sequence) and len(entry.budget_bytes) != image_count:
            raise ConfigError(f"{entry.label!r} has {len(entry.budget_bytes)} budgets for {image_count} images")
        if isinstance(entry.codec, ClassMapCodec) and len(entry.codec.class_names) != class_count:
            raise ConfigError(
                f"{entry.label!r} sends maps of {len(entry.codec.class_names)} classes where the expert has "
                f"{class_count}: give it this expert (label-map:EXPERT)"
            )
        searched = entry.match is not None or entry.budget_bytes is not None
        if searched and not isinstance(entry.codec, RateControlledCodec):
            raise ConfigError(f"{entry.label!r} has a byte budget, but the rate of {entry.codec.name!r} is fixed")
        earlier.append(entry.label)
