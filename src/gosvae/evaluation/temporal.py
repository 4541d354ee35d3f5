"""Evaluation of video codecs: every codec on every clip, real bytes of every frame, one confusion matrix over all.

The expert looks at each decoded frame. Where a codec sends fewer frames than the camera takes, the newest map stands
until the next one comes. Axis legend: H and W pixels.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import NoReturn

import numpy as np
import torch
from tqdm import tqdm

from gosvae.codecs.frame_by_frame import FrameByFrame
from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.errors import ConfigError
from gosvae.evaluation.clips import Clip, Footage
from gosvae.evaluation.evaluation import ClassMapArray, Evaluation, KeptImage, Reconstruction
from gosvae.evaluation.fitting import check_classes
from gosvae.evaluation.flicker import FlickerMeter
from gosvae.evaluation.results import gather_provenance
from gosvae.evaluation.rows import UNCOMPRESSED, ImageRow, Provenance, Row, mean_of
from gosvae.evaluation.shots import ShotResamples, TaskCounts
from gosvae.evaluation.video_entry import VideoEntry, coded_frames, rate_of, sent_frames
from gosvae.evaluation.video_link import LinkConditions, SimulatedLink
from gosvae.experts.base import Expert
from gosvae.metrics import mean_squared_error
from gosvae.seeding import numpy_generator
from gosvae.tasks.judges import device_of
from gosvae.tensors import ImageArray, image_to_tensor
from gosvae.units import psnr_db, rate_bpp

_Seen = tuple[ImageArray, ClassMapArray]
"""A picture and its class map."""


def evaluate_video(
    codecs: Sequence[VideoEntry],
    footage: Footage,
    expert: Expert,
    *,
    use_labels: bool = True,
    keep_frames: Sequence[int] = (),
    known: Sequence[Evaluation] = (),
    progress: bool | None = None,
    generator: np.random.Generator | None = None,
    link: LinkConditions | None = None,
) -> Evaluation:
    """Measure video codecs on clips. Each clip is a sequence of its own, and a shot for the intervals.

    The first row is the uncompressed reference: the expert on the originals. The rows of single frames have 0 bytes
    where nothing is sent.

    Args:
        codecs: codecs in the order of the table.
        footage: clips, with or without labels.
        expert: perception model of the receiver.
        use_labels: whether to compare with labels, if there are any. The agreement with the expert's maps of the
            originals is always measured.
        keep_frames: numbers of frames of the first clip whose pixels and class maps are kept for pictures.
        known: earlier evaluations of the same clips by the same expert. Entries whose labels have rows there are not
            measured again, unless frames are kept.
        progress: whether to show a bar on stderr; None shows it on a terminal only.
        generator: as `evaluate`.
        link: link that the frames are sent over, for codecs with a temporal model; None delivers everything. Bytes are
            then those of the datagrams. The class map before a frame that does not arrive stays in use.

    Raises:
        ConfigError: two entries have the same label, a rate is not positive or above that of a clip, a frame cannot be
            kept, the classes of labels and expert differ, or a known evaluation is of other clips or by another expert.
    """
    _check(codecs, footage, keep_frames)
    if link is not None and (foreign := [e.label for e in codecs if not isinstance(e.codec, SequenceCodec)]):
        raise ConfigError(f"{foreign[0]!r} has no way to hear of losses: only codecs with a temporal model have one")
    if link is not None and (paced := [e.label for e in codecs if e.kbps is not None]):
        raise ConfigError(
            f"{paced[0]!r} has a rate, which is measured on links that lose nothing: give a level instead"
        )
    if link is not None and known:
        raise ConfigError("known evaluations are of links that lose nothing: measure again without them")
    if use_labels and footage.class_names:
        check_classes(footage, expert)
    if not use_labels:
        footage = replace(footage, clips=tuple(_without_labels(clip) for clip in footage.clips))
    provenance = replace(_provenance(footage, expert), channel=None if link is None else str(link))
    rows, images = ({}, ()) if keep_frames else _known(known, provenance)
    wanted = [UNCOMPRESSED, *(entry.label for entry in codecs)]
    if missing := [entry for entry in codecs if entry.label not in rows]:
        tallies = [_Tally(entry, expert, link) for entry in missing]
        measured = _measured(tallies, footage, expert, keep_frames, progress, generator)
        rows |= {row.label: row for row in measured.rows}
        images, kept = (*images, *measured.images), measured.kept
    else:
        kept = ()
    return Evaluation(
        provenance=provenance,
        rows=tuple(rows[label] for label in wanted),
        images=tuple(image for label in wanted for image in images if image.label == label),
        kept=kept,
    )


def _provenance(footage: Footage, expert: Expert) -> Provenance:
    sizes = [(frame.shape[0], frame.shape[1]) for clip in footage.clips for frame in clip.frames]
    clips = (f"{clip.name} ({len(clip.frames)} frames, {clip.frames_per_second:g} Hz)" for clip in footage.clips)
    return replace(
        gather_provenance(footage.name, expert, {}, sizes, None), shots=len(footage.clips), clips=", ".join(clips)
    )


def _known(known: Sequence[Evaluation], provenance: Provenance) -> tuple[dict[str, Row], tuple[ImageRow, ...]]:
    """Return the rows of known evaluations by label, and the rows of their frames."""
    rows: dict[str, Row] = {}
    images: list[ImageRow] = []
    for evaluation in known:
        for name in ("dataset", "clips", "geometry", "expert_fingerprint", "channel"):
            given, expected = getattr(evaluation.provenance, name), getattr(provenance, name)
            if given != expected:
                raise ConfigError(f"the known evaluation has another {name}: {given!r}, expected {expected!r}")
        new = {row.label: row for row in evaluation.rows if row.label not in rows}
        rows |= new
        images += [image for image in evaluation.images if image.label in new]
    return rows, tuple(images)


def _measured(
    tallies: Sequence[_Tally],
    footage: Footage,
    expert: Expert,
    keep_frames: Sequence[int],
    progress: bool | None,
    generator: np.random.Generator | None,
) -> Evaluation:
    """Measure codecs, and the expert on the originals."""
    reference, own_flicker = TaskCounts(len(expert.info.class_names)), FlickerMeter()
    kept_maps: list[ClassMapArray] = []
    steps = sum(len(clip.frames) for clip in footage.clips) * (1 + sum(tally.repeats for tally in tallies))
    hidden = None if progress is None else not progress
    with tqdm(total=steps, desc="evaluate", unit="frame", disable=hidden, file=sys.stderr) as bar:
        for number, clip in enumerate(footage.clips):
            maps = []
            own_flicker.cut()
            for frame, labels_HW in zip(clip.frames, clip.labels, strict=True):
                maps.append(_seen(expert, frame))
                reference.update(clip.name, maps[-1], maps[-1], labels_HW)
                own_flicker.update(maps[-1], maps[-1])
                bar.update()
            for tally in tallies:
                tally.measure(clip, maps, keep_frames if number == 0 else (), bar)
            if number == 0:
                kept_maps = [maps[index] for index in keep_frames]
    resamples = ShotResamples(reference.shots, generator or numpy_generator("shots"))
    frame_count = sum(len(clip.frames) for clip in footage.clips)
    first = footage.clips[0]
    return Evaluation(
        provenance=_provenance(footage, expert),
        rows=(
            Row(UNCOMPRESSED, UNCOMPRESSED, frame_count, flicker=own_flicker.share, **reference.values(resamples)),
            *(tally.row(footage, resamples) for tally in tallies),
        ),
        images=tuple(row for tally in tallies for row in tally.rows),
        kept=tuple(
            KeptImage(
                f"{first.name} {index}", first.frames[index], kept_maps[place], tuple(t.kept[place] for t in tallies)
            )
            for place, index in enumerate(keep_frames)
        ),
    )


def _check(codecs: Sequence[VideoEntry], footage: Footage, keep_frames: Sequence[int]) -> None:
    """Refuse what would fail only after minutes of work."""
    if not footage.clips:
        raise ConfigError(f"{footage.name!r} has no clips: nothing to evaluate")
    labels = [UNCOMPRESSED, *(entry.label for entry in codecs)]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"two rows are called {twice!r}: give each codec entry a label of its own")
    for entry in codecs:
        if entry.frames_per_second is not None and not entry.frames_per_second > 0:
            raise ConfigError(f"{entry.label!r} sends {entry.frames_per_second} frames a second: expected more than 0")
        if entry.kbps is not None and not isinstance(entry.codec, SequenceCodec):
            raise ConfigError(f"{entry.label!r} has no temporal model, by which frames and levels follow a rate")
        if entry.kbps is not None and entry.frames_per_second is not None:
            raise ConfigError(
                f"{entry.label!r} has both a frame rate and a rate, which chooses the frames: leave one out"
            )
        slowest = min(clip.frames_per_second for clip in footage.clips)
        if (entry.frames_per_second or 0.0) > slowest:
            raise ConfigError(
                f"{entry.label!r} sends {entry.frames_per_second:g} frames a second, a clip has {slowest:g}: send fewer"
            )
    count = len(footage.clips[0].frames)
    outside = [index for index in keep_frames if not 0 <= index < count]
    if outside:
        raise ConfigError(f"frame {outside[0]} cannot be kept: the first clip has frames 0 to {count - 1}")


def _without_labels(clip: Clip) -> Clip:
    return replace(clip, labels=(None,) * len(clip.frames))


@torch.inference_mode()
def _seen(expert: Expert, image_uint8_HW3: ImageArray) -> ClassMapArray:
    """Return the class map that an expert sees, (H, W)."""
    x_B3HW = image_to_tensor(image_uint8_HW3).to(device_of(expert))
    return expert.class_map(x_B3HW)[0].cpu().numpy().astype(np.int16)


class _Tally:
    """One codec entry and its results so far."""

    def __init__(self, entry: VideoEntry, expert: Expert, link: LinkConditions | None) -> None:
        self.entry, self.expert, self.link = entry, expert, link
        self.repeats = 1 if link is None else link.repeats
        self.counts, self.flicker = TaskCounts(len(expert.info.class_names)), FlickerMeter()
        self.rows: list[ImageRow] = []
        self.kept: list[Reconstruction] = []
        self.ages_ms: list[float] = []
        self.encode_ms: list[float] = []
        self.decode_ms: list[float] = []

    @torch.inference_mode()
    def measure(
        self, clip: Clip, maps: Sequence[ClassMapArray], keep_frames: Sequence[int], bar: tqdm[NoReturn]
    ) -> None:
        """Compress and decompress a clip, and count every frame; `maps` are those of the originals."""
        for repeat in range(self.repeats):
            self._measure_once(clip, maps, keep_frames if repeat == 0 else (), bar, repeat)

    def _measure_once(
        self,
        clip: Clip,
        maps: Sequence[ClassMapArray],
        keep_frames: Sequence[int],
        bar: tqdm[NoReturn],
        repeat: int,
    ) -> None:
        if self.link is None:
            start = time.perf_counter()
            coded = coded_frames(self.entry, clip)
            self.encode_ms.append(1000.0 * (time.perf_counter() - start) / len(coded))
            sent, shown = set(coded), self._delivered(coded.values())
        else:
            numbers = sent_frames(len(clip.frames), clip.frames_per_second, self.entry.frames_per_second)
            generator = numpy_generator("link", clip.name, self.link.seed, repeat)
            sent, shown = set(numbers), self._over_link(clip, numbers, rate_of(self.entry, clip), generator)
        again = f" ({repeat + 1})" if repeat else ""
        newest, picture, class_map_HW = 0, np.full_like(clip.frames[0], 128), np.zeros_like(maps[0])
        kept = {}
        self.flicker.cut()
        for index in range(len(clip.frames)):
            n_bytes = 0
            if index in sent:
                n_bytes, seen = next(shown)
                if seen is not None:
                    newest, (picture, class_map_HW) = index, seen
            self.ages_ms.append(1000.0 * (index - newest) / clip.frames_per_second)
            name = f"{clip.name} {index}{again}"
            row = self._count(clip, index, name, maps[index], class_map_HW, picture, n_bytes)
            if index in keep_frames:
                kept[index] = Reconstruction(self.entry.label, picture, class_map_HW, row)
            bar.update()
        self.kept += [kept[index] for index in keep_frames]

    def _delivered(self, coded: Iterable[bytes]) -> Iterator[tuple[int, _Seen | None]]:
        """Yield the number of bytes of each frame that is sent, and its picture and class map."""
        decoder = self.entry.codec.decoder()
        for data in coded:
            start = time.perf_counter()
            picture = decoder.decode(data)
            self.decode_ms.append(1000.0 * (time.perf_counter() - start))
            yield len(data), (picture, _seen(self.expert, picture))

    def _over_link(
        self, clip: Clip, sent: Sequence[int], rate: float, generator: np.random.Generator
    ) -> Iterator[tuple[int, _Seen | None]]:
        """Yield the same of a link that loses datagrams; None where the receiver keeps an earlier picture."""
        assert self.link is not None
        assert isinstance(self.entry.codec, SequenceCodec)
        link = SimulatedLink(self.entry.codec, self.expert, self.link, rate, generator)
        for index in sent:
            start = time.perf_counter()
            shown = link.send(clip.frames[index])
            self.encode_ms.append(1000.0 * (time.perf_counter() - start))
            seen = shown.perceived
            if seen is None or seen.classes_uint8_HW is None:
                yield shown.link_bytes, None
            else:
                yield shown.link_bytes, (seen.image_uint8_HW3, seen.classes_uint8_HW.astype(np.int16))

    def _count(
        self,
        clip: Clip,
        index: int,
        name: str,
        original_HW: ClassMapArray,
        class_map_HW: ClassMapArray,
        picture_uint8_HW3: ImageArray,
        n_bytes: int,
    ) -> ImageRow:
        """Count a frame of a clip, and return its row."""
        agreement = self.counts.update(clip.name, class_map_HW, original_HW, clip.labels[index])
        self.flicker.update(class_map_HW, original_HW)
        miou, mse = agreement.mean_iou(), mean_squared_error(clip.frames[index], picture_uint8_HW3)
        assert miou is not None  # the map of the original has no ignored pixels
        row = ImageRow(
            label=self.entry.label,
            image=name,
            height=picture_uint8_HW3.shape[0],
            width=picture_uint8_HW3.shape[1],
            total_bytes=n_bytes,
            payload_bytes=n_bytes,
            agreement_accuracy=agreement.pixel_accuracy() or 0.0,
            agreement_miou=miou.value,
            mse=mse,
            psnr_db=psnr_db(mse),
            lpips=None,
            over_budget=False,
        )
        self.rows.append(row)
        return row

    def row(self, footage: Footage, resamples: ShotResamples) -> Row:
        """Return the row of the codec over all clips."""
        rows, codec = self.rows, self.entry.codec
        total_bytes = sum(row.total_bytes for row in rows)
        return Row(
            label=self.entry.label,
            codec=codec.name,
            image_count=len(rows),
            curve=self.entry.curve,
            total_bytes=total_bytes / len(rows),
            bpp=fmean(rate_bpp(row.total_bytes, row.height, row.width) for row in rows),
            **self.counts.values(resamples),
            mse=mean_of(row.mse for row in rows),
            psnr_db=mean_of(row.psnr_db for row in rows),
            parameters=codec.codec.parameter_count if isinstance(codec, FrameByFrame) else None,
            encode_ms=median(self.encode_ms),
            decode_ms=median(self.decode_ms) if self.decode_ms else None,
            kbit_per_second=8e-3 * total_bytes / (self.repeats * sum(clip.seconds for clip in footage.clips)),
            largest_frame_bytes=max(row.total_bytes for row in rows),
            flicker=self.flicker.share,
            flicker_at_rest=self.flicker.share_at_rest,
            age_ms=fmean(self.ages_ms),
        )
