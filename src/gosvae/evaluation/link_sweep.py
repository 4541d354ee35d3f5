"""Sweeps over channels that get worse: quality of the task for several systems at equal bytes on the air."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from types import MappingProxyType

import numpy as np
import torch
from pydantic import TypeAdapter
from tqdm import tqdm

from gosvae.channels import load_channel
from gosvae.codecs.base import ClassMapCodec, ImageCodec, LossTolerantCodec, RateControlledCodec
from gosvae.datasets.base import Dataset, Sample
from gosvae.errors import ConfigError, unknown_name
from gosvae.evaluation.evaluation import ClassMapArray
from gosvae.evaluation.fitting import check_classes
from gosvae.evaluation.results import gather_provenance
from gosvae.evaluation.rows import Provenance
from gosvae.evaluation.transmission import LinkSettings, Outcome, Sent, receive, send, transmit
from gosvae.experts.base import Expert
from gosvae.files import write_atomically
from gosvae.metrics import ConfusionMatrix
from gosvae.packets import ReceivedFrame
from gosvae.seeding import torch_generator
from gosvae.tensors import ImageArray, image_to_tensor

SWEEP_FILE = "link.json"


@dataclass(frozen=True)
class Axis:
    """A quantity that can be swept.

    Attributes:
        title: title of the axis in plots, with its unit.
        spec: specification of the channel, with `{}` for the value.
        points: default values.
    """

    title: str
    spec: str
    points: tuple[float, ...]


AXES: Mapping[str, Axis] = MappingProxyType(
    {
        "loss": Axis("packet loss rate (%)", "packet-loss p={}", (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)),
        "burst": Axis(
            "packet loss rate (%), in bursts of 3 packets on average",
            "gilbert-elliott loss={} burst=3",
            (0.0, 0.02, 0.05, 0.1, 0.2, 0.3),
        ),
        "ber": Axis("bit error rate", "binary-symmetric p={}", (0.0, 1e-6, 1e-5, 3e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3)),
        "awgn": Axis(
            "Es/N0 (dB): AWGN, QPSK, LDPC of rate 1/2",
            "awgn snr_db={} modulation=qpsk ldpc_rate=0.5",
            (0.0, 0.5, 1.0, 1.5, 2.0, 3.0),
        ),
        "rayleigh": Axis(
            "mean Es/N0 (dB): Rayleigh fading by packet, QPSK, LDPC of rate 1/2",
            "rayleigh snr_db={} modulation=qpsk ldpc_rate=0.5",
            (0.0, 4.0, 8.0, 12.0, 16.0, 20.0),
        ),
    }
)
"""Axes by name."""


@dataclass(frozen=True)
class System:
    """A codec with its protection.

    Attributes:
        label: name in tables and plots, unique in a sweep.
        codec: codec of the images.
        overhead: number of repair packets for each packet.
        budget_bytes: largest number of bytes on the air for each image; None takes the codec's own rate.
    """

    label: str
    codec: ImageCodec
    overhead: float = 0.0
    budget_bytes: int | None = None


@dataclass(frozen=True)
class SweepRow:
    """Result of a system at one point of an axis.

    Attributes:
        axis: name of the axis.
        system: label of the system.
        x: value of the axis; a share, not per cent.
        channel: specification of the channel.
        air_bytes: mean bytes of all datagrams of an image.
        miou: mIoU against labels, from one confusion matrix over all images and repeats; None without labels.
        agreement_miou: mIoU against the expert's maps of the originals.
        whole, concealed, truncated, lost: share of the images with this outcome, see `transmission.Outcome`.
        concealed_share: mean share of the pixels that are concealed, or lost with their image.
        over_budget_images: number of images whose smallest stream is above the budget; it is sent nevertheless.
    """

    system: str
    axis: str
    x: float
    channel: str
    air_bytes: float
    miou: float | None
    agreement_miou: float | None
    whole: float
    concealed: float
    truncated: float
    lost: float
    concealed_share: float
    over_budget_images: int


@dataclass(frozen=True)
class Sweep:
    """Result of a sweep.

    Attributes:
        provenance: data, expert, versions and hardware.
        reference_miou: mIoU of the expert on the originals; None without labels.
        budget_bytes: largest number of bytes on the air for systems whose rate can be set.
        repeats: number of times that each image is sent at each point, each time with other random numbers.
        rows: results, sorted by axis, then by system, then by point.
    """

    provenance: Provenance
    reference_miou: float | None
    budget_bytes: int | None
    repeats: int
    rows: tuple[SweepRow, ...]


class _Point:
    """Counts of a system at a point."""

    def __init__(self, class_count: int) -> None:
        self.labels, self.agreement = ConfusionMatrix(class_count), ConfusionMatrix(class_count)
        self.outcomes: list[Outcome] = []
        self.concealed: list[float] = []


@dataclass(frozen=True)
class _Seen:
    """Delivery of an image as the expert sees it: both confusion matrices, and the outcome."""

    labels: ConfusionMatrix | None
    agreement: ConfusionMatrix
    outcome: Outcome
    concealed_share: float


class _Viewer:
    """One image of one system; equal deliveries are decoded only once."""

    def __init__(self, expert: Expert, codec: ImageCodec, sample: Sample, original_HW: ClassMapArray) -> None:
        self.expert, self.codec, self.sample, self.original_HW = expert, codec, sample, original_HW
        self.known: dict[tuple[int, ...] | None, _Seen] = {}

    def see(self, frame: ReceivedFrame | None) -> _Seen:
        """Return the expert's view of a delivery."""
        # Slices that arrive are as they were sent; of other files only the part before the first gap counts.
        tolerant = isinstance(self.codec, LossTolerantCodec)
        key = None if frame is None else frame.missing if tolerant else frame.missing[:1]
        if key not in self.known:
            image = self.sample.image_uint8_HW3
            received = receive(self.codec, frame, (image.shape[0], image.shape[1]))
            class_map_HW = class_map_of(self.expert, received.image_uint8_HW3)
            classes = len(self.expert.info.class_names)
            agreement, labels = ConfusionMatrix(classes), None
            agreement.update(class_map_HW, self.original_HW)
            if self.sample.labels_uint8_HW is not None:
                labels = ConfusionMatrix(classes)
                labels.update(class_map_HW, self.sample.labels_uint8_HW)
            self.known[key] = _Seen(labels, agreement, received.outcome, received.concealed_share)
        return self.known[key]


@torch.inference_mode()
def class_map_of(expert: Expert, image_uint8_HW3: ImageArray) -> ClassMapArray:
    """Return the expert's class of every pixel, (H, W)."""
    device = next(chain(expert.parameters(), expert.buffers()), torch.empty(0)).device
    x_B3HW = image_to_tensor(image_uint8_HW3).to(device)
    class_map_HW: ClassMapArray = expert.class_map(x_B3HW)[0].cpu().numpy().astype(np.int16)
    return class_map_HW


def sweep_link(
    systems: Sequence[System],
    dataset: Dataset,
    expert: Expert,
    axes: Mapping[str, Sequence[float] | None],
    link: LinkSettings,
    *,
    repeats: int = 1,
    use_labels: bool = True,
    progress: bool | None = None,
) -> Sweep:
    """Send every image over every channel with every system.

    Args:
        systems: systems in the order of the tables.
        axes: points of each axis, by a name of `AXES`; None takes the default points.
        link: packets, MTU and seed; its channel and overhead are not used.
        repeats: number of times that each image is sent at each point.

    Raises:
        ConfigError: there is nothing to sweep, two systems have the same label, a codec sends class maps, or the
            classes of labels and expert differ.
    """
    labels = [system.label for system in systems]
    if not systems or not axes or len(dataset) == 0 or repeats < 1 or len(set(labels)) < len(labels):
        raise ConfigError(f"expected systems with labels of their own, axes, images and repeats, got {labels}, {axes}")
    for system in systems:
        if isinstance(system.codec, ClassMapCodec):
            raise ConfigError(f"{system.label}: a class map of which a part is lost shows nothing: leave it out")
        if system.budget_bytes is not None and not isinstance(system.codec, RateControlledCodec):
            raise ConfigError(f"{system.label} has a byte budget, but the rate of {system.codec.name!r} is fixed")
    if use_labels and dataset.has_labels:
        check_classes(dataset, expert)
    specs = {(name, x): spec for name, points in axes.items() for x, spec in _specs(name, points)}
    classes = len(expert.info.class_names)
    points = {(label, key): _Point(classes) for label in labels for key in specs}
    sent: dict[str, list[Sent]] = {label: [] for label in labels}
    reference, sizes = ConfusionMatrix(classes), []
    hidden = None if progress is None else not progress
    for index in tqdm(range(len(dataset)), desc="sweep", unit="image", disable=hidden, file=sys.stderr):
        sample = dataset[index] if use_labels else replace(dataset[index], labels_uint8_HW=None)
        original_HW = class_map_of(expert, sample.image_uint8_HW3)
        sizes.append((original_HW.shape[0], original_HW.shape[1]))
        if sample.labels_uint8_HW is not None:
            reference.update(original_HW, sample.labels_uint8_HW)
        for system in systems:
            own = replace(link, overhead=system.overhead)
            sent[system.label].append(send(system.codec, sample.image_uint8_HW3, own, system.budget_bytes))
            viewer = _Viewer(expert, system.codec, sample, original_HW)
            for key, spec in specs.items():
                for repeat in range(repeats):
                    generator = torch_generator(link.seed, "link", index, repeat)
                    frame = transmit(sent[system.label][-1].datagrams, load_channel(spec), generator)
                    _count(points[system.label, key], viewer.see(frame))
    provenance = gather_provenance(dataset.name, expert, {}, sizes, None)
    means = reference.mean_iou()
    return Sweep(
        provenance=replace(provenance, channel=f"{link.packets} packets an image, seed {link.seed}"),
        reference_miou=means.value if means else None,
        budget_bytes=next((system.budget_bytes for system in systems if system.budget_bytes), None),
        repeats=repeats,
        rows=tuple(
            _row(label, key, specs[key], points[label, key], sent[label])
            for name in axes
            for label in labels
            for key in specs
            if key[0] == name
        ),
    )


def _specs(name: str, points: Sequence[float] | None) -> list[tuple[float, str]]:
    """Return the points of an axis with their channels; raise ConfigError for an unknown axis or channel."""
    if name not in AXES:
        raise ConfigError(unknown_name("axis", name, AXES))
    axis = AXES[name]
    specs = [(x, axis.spec.format(x)) for x in (axis.points if points is None else points)]
    for _, spec in specs:
        load_channel(spec)
    return specs


def _count(point: _Point, seen: _Seen) -> None:
    point.agreement.merge(seen.agreement)
    if seen.labels is not None:
        point.labels.merge(seen.labels)
    point.outcomes.append(seen.outcome)
    point.concealed.append(seen.concealed_share)


def _row(label: str, key: tuple[str, float], spec: str, point: _Point, sent: Sequence[Sent]) -> SweepRow:
    miou, agreement = point.labels.mean_iou(), point.agreement.mean_iou()
    shares = {name: point.outcomes.count(name) / len(point.outcomes) for name in _OUTCOMES}
    return SweepRow(
        system=label,
        axis=key[0],
        x=key[1],
        channel=spec,
        air_bytes=fmean(s.air_bytes for s in sent),
        miou=miou.value if miou else None,
        agreement_miou=agreement.value if agreement else None,
        **shares,
        concealed_share=fmean(point.concealed),
        over_budget_images=sum(s.over_budget for s in sent),
    )


_OUTCOMES: tuple[Outcome, ...] = ("whole", "concealed", "truncated", "lost")


def save_sweep(sweep: Sweep, folder: Path) -> Path:
    """Write `link.json` and return its path.

    Raises:
        WriteError: no space or no permission.
    """
    write_atomically(folder / SWEEP_FILE, TypeAdapter(Sweep).dump_json(sweep, indent=1) + b"\n")
    return folder / SWEEP_FILE
