#!/usr/bin/env python3
"""Measure codecs with networks that took no part in their training: mIoU, agreement, BD-rate, and the lattice.

    scripts/judge.py gosvae-variable-camvid runs/mine --data camvid:PATH@unseen \\
        --expert expert-camvid expert-idd --limit 34 --out runs/judged

Every codec of any rate is a curve over the budgets of `--kib`, met image by image; AVIF at full, half and third size,
as Pillow writes it and at speed 1 tuned for SSIM, is one over its qualities. For every expert the script prints

- the mIoU against the labels, and its share of the mIoU on uncompressed images,
- the agreement, which is the mIoU against the expert's own map of the original,
- the BD-rate on both against the upper envelope of all AVIF curves, for files as they are and without container boxes,
- what the envelope reaches at the same budgets.

With `--detector` it also prints the AP50 of FastestDet's boxes on reconstructions against those on the originals.

Labels are those of the common classes for an expert of these. The lattice is the energy of the reconstructions at
the harmonics of 1/16 over that of the originals (`gosvae.evaluation.lattice`). Rows of AVIF and of the uncompressed
images that stand in the folder of `--out` already, for the same images and experts, are not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from gosvae.cli.sweeps import SWEEPS
from gosvae.codecs.base import ImageCodec, RateControlledCodec
from gosvae.codecs.classical import load_classical
from gosvae.codecs.registry import load_codec
from gosvae.datasets.base import Dataset, Sample
from gosvae.datasets.common import in_classes
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.errors import ConfigError, RateError
from gosvae.evaluation.bd_rate import bd_rate_of_points, upper_envelope
from gosvae.evaluation.boxes import FastestDet
from gosvae.evaluation.lattice import LatticeMeter
from gosvae.experts.base import Expert
from gosvae.experts.registry import load_expert
from gosvae.files import json_bytes, write_atomically
from gosvae.metrics import ConfusionMatrix, mean_squared_error
from gosvae.tasks.boxes import BoxMeter
from gosvae.tensors import ImageArray, image_to_tensor
from gosvae.units import psnr_db

RIVALS = {
    "avif": (1, 5, 10, 20, 30, 40, 50, 60, 70, 80),
    "avif-half": (5, 15, 30, 45, 60, 75, 90),
    "avif-third": (5, 20, 40, 55, 70, 80, 90),
    **{name: SWEEPS[name] for name in ("avif-slow", "avif-half-slow", "avif-third-slow")},
}
"""Qualities of the rate points of each rival."""
UNCOMPRESSED = "uncompressed"
MEASURES = ("miou", "agreement")


@dataclass(frozen=True)
class Row:
    """A codec at one setting, over all images.

    Attributes:
        curve: name of the codec; its rows are one curve.
        kib, bare_kib: mean size of the files as they are, and without container boxes.
        miou, agreement: by name of the expert.
        lattice: see `LatticeMeter`. over_budget: images whose smallest file is above the budget.
        ap50: see `BoxMeter`; None without a detector.
    """

    curve: str
    label: str
    kib: float
    bare_kib: float
    miou: dict[str, float]
    agreement: dict[str, float]
    psnr_db: float
    lattice: float
    over_budget: int = 0
    ap50: float | None = None


class Bench:
    """Images with what every expert sees on them.

    Args:
        spec: data set, as on the command line; limit: so many images, evenly spaced, or None.
        experts: names, see `load_expert`. detector: path of an ONNX file, or None.
    """

    def __init__(self, spec: str, limit: int | None, experts: Sequence[str], detector: Path | None) -> None:
        dataset = load_prepared(spec, default_split="val")
        dataset = EvenlySpaced(dataset, limit) if limit else dataset
        self.experts: dict[str, Expert] = {Path(name).name: load_expert(name) for name in experts}
        self.images = [dataset[i].image_uint8_HW3 for i in range(len(dataset))]
        self._labels = {name: list(_labels(dataset, expert)) for name, expert in self.experts.items()}
        self._maps = {name: [_map(expert, image) for image in self.images] for name, expert in self.experts.items()}
        self._detector = FastestDet(detector) if detector else None
        self._boxes = [self._detector(image) for image in self.images] if self._detector else []
        self.key = {
            "data": dataset.name,
            "detector": detector and detector.name,
            "names": [dataset[i].name for i in range(len(dataset))],
            "experts": {name: expert.fingerprint() for name, expert in self.experts.items()},
        }

    def reference(self) -> Row:
        """The experts on the originals."""
        return self._row(UNCOMPRESSED, UNCOMPRESSED, self.images, [0], [0])

    def measure(self, curve: str, label: str, codec: ImageCodec, budget_bytes: int | None) -> Row:
        """A codec at a setting, or at a budget for each image."""
        pictures: list[ImageArray] = []
        sizes, payloads, over = [], [], 0
        for image in self.images:
            data, fits = _compress(codec, image, budget_bytes)
            pictures.append(codec.decompress(data))
            sizes.append(len(data))
            payloads.append(codec.codestream_bytes(data))
            over += not fits
        return self._row(curve, label, pictures, sizes, payloads, over)

    def _row(
        self,
        curve: str,
        label: str,
        pictures: Sequence[ImageArray],
        sizes: Sequence[int],
        payloads: Sequence[int],
        over: int = 0,
    ) -> Row:
        lattice, errors = LatticeMeter(), []
        for image, picture in zip(self.images, pictures, strict=True):
            lattice.update(image, picture)
            errors.append(max(mean_squared_error(image, picture), 1e-10))
        miou, agreement = {}, {}
        for name, expert in self.experts.items():
            with_labels, with_map = (ConfusionMatrix(len(expert.info.class_names)) for _ in range(2))
            rows = zip(pictures, self._labels[name], self._maps[name], strict=True)
            for picture, labels_HW, map_HW in rows:
                seen_HW = _map(expert, picture)
                with_map.update(seen_HW, map_HW)
                if labels_HW is not None:
                    with_labels.update(seen_HW, labels_HW)
            found, agreed = with_labels.mean_iou(), with_map.mean_iou()
            miou[name] = found.value if found else float("nan")
            agreement[name] = agreed.value if agreed else float("nan")
        meter = BoxMeter()
        if self._detector:
            for picture, boxes in zip(pictures, self._boxes, strict=True):
                meter.update(boxes, self._detector(picture))
        return Row(
            curve, label, fmean(sizes) / 1024, fmean(payloads) / 1024, miou, agreement,
            fmean(map(psnr_db, errors)), lattice.value() or float("nan"), over, meter.value(),
        )  # fmt: skip


def _labels(dataset: Dataset, expert: Expert) -> Iterator[np.ndarray | None]:
    """Label maps in the classes of an expert; None where there are none."""
    fitting = in_classes(dataset, expert.info.class_names)
    for i in range(len(fitting)):
        sample: Sample = fitting[i]
        yield sample.labels_uint8_HW if fitting.class_names == expert.info.class_names else None


@torch.inference_mode()
def _map(expert: Expert, image: ImageArray) -> np.ndarray:
    return expert.class_map(image_to_tensor(image))[0].numpy().astype(np.uint8)


@torch.inference_mode()
def _compress(codec: ImageCodec, image: ImageArray, budget_bytes: int | None) -> tuple[bytes, bool]:
    if budget_bytes is None:
        return codec.compress(image), True
    if not isinstance(codec, RateControlledCodec):
        raise ConfigError(f"{codec.name} has no rate to set")
    try:
        return codec.compress_to_budget(image, budget_bytes), True
    except RateError:
        return codec.compress_smallest(image), False


def entries(
    codecs: Sequence[str], rivals: Sequence[str], budgets_kib: Sequence[float]
) -> Iterator[tuple[str, str, ImageCodec, int | None]]:
    """Curve, label, codec and budget of every row but the first."""
    for name in rivals:
        qualities = RIVALS[name]
        yield from ((name, f"{name}:{quality}", load_classical(name, quality), None) for quality in qualities)
    for name in codecs:
        codec = load_codec(name)
        if isinstance(codec, RateControlledCodec):
            yield from ((name, f"{name}:{kib:g}KiB", codec, int(1024 * kib)) for kib in budgets_kib)
        else:
            yield name, name, codec, None


def envelope_at(rows: Sequence[Row], kib: float, measure: str, expert: str, *, bare: bool) -> float | None:
    """What the envelope of the rivals reaches at a size; None outside of it, nothing is extrapolated."""
    sizes, values = np.array(upper_envelope(points(rows, measure, expert, bare=bare))).T
    if not sizes[0] <= kib <= sizes[-1]:
        return None
    return float(np.interp(np.log(kib), np.log(sizes), values))


def points(rows: Sequence[Row], measure: str, expert: str, *, bare: bool) -> list[tuple[float, float]]:
    """Size and quality of rows."""
    return [(row.bare_kib if bare else row.kib, getattr(row, measure)[expert]) for row in rows]


def report(rows: Sequence[Row], experts: Sequence[str], budgets_kib: Sequence[float]) -> str:
    """Tables in Markdown."""
    reference, rivals = rows[0], [row for row in rows if row.curve in RIVALS]
    ours = [row for row in rows[1:] if row.curve not in RIVALS]
    lines = ["| codec | KiB | PSNR, dB | lattice | AP50 |", "|---|--:|--:|--:|--:|"]
    for row in [*ours, *(row for row in rivals if row.ap50 is not None and row.kib < 1.2 * max(budgets_kib))]:
        boxes = "-" if row.ap50 is None else f"{row.ap50:.3f}"
        lines.append(f"| {row.label} | {row.kib:.2f} | {row.psnr_db:.1f} | {row.lattice:.2f} | {boxes} |")
    for expert in experts:
        whole = reference.miou[expert]
        lines += ["", f"**{expert}**, uncompressed mIoU {whole:.4f}", ""]
        lines += ["| codec | KiB | mIoU | share | agreement |", "|---|--:|--:|--:|--:|"]
        for row in ours:
            miou, agreement = row.miou[expert], row.agreement[expert]
            lines.append(f"| {row.label} | {row.kib:.2f} | {miou:.4f} | {miou / whole:.3f} | {agreement:.4f} |")
        for bare in (False, True) if rivals else ():
            for kib in budgets_kib:
                cells = [envelope_at(rivals, kib, measure, expert, bare=bare) for measure in MEASURES]
                if None in cells:
                    continue
                title = f"AVIF's envelope{', without boxes' if bare else ''}"
                lines.append(f"| {title} | {kib:.2f} | {cells[0]:.4f} | {cells[0] / whole:.3f} | {cells[1]:.4f} |")
        lines.append("")
        for curve in dict.fromkeys(row.curve for row in ours if rivals):
            for bare in (False, True):
                found = [_bd_rate(rows, curve, rivals, measure, expert, bare=bare) for measure in MEASURES]
                files = "without boxes" if bare else "files as they are"
                lines.append(f"BD-rate of {curve} against the envelope, {files}: mIoU {found[0]}, agreement {found[1]}")
    return "\n".join(lines) + "\n"


def _bd_rate(rows: Sequence[Row], curve: str, rivals: Sequence[Row], measure: str, expert: str, *, bare: bool) -> str:
    own = points([row for row in rows if row.curve == curve and not row.over_budget], measure, expert, bare=bare)
    anchor = points(rivals, measure, expert, bare=bare)
    try:
        found = bd_rate_of_points(own, anchor, names=(curve, "the envelope"))
    except ConfigError as error:
        return f"none ({error})"
    return f"{found.percent:+.1f} % ({found.quality_from:.3f} to {found.quality_to:.3f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codecs", nargs="+", help="names or folders of codecs, those of any rate at all budgets")
    parser.add_argument("--data", required=True, help="such as camvid:PATH@unseen")
    parser.add_argument("--expert", nargs="+", default=["embedded"], help="the judges")
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS), choices=list(RIVALS), help="all by default")
    parser.add_argument("--detector", type=Path, help="ONNX file of FastestDet")
    parser.add_argument("--kib", type=float, nargs="+", default=[0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0, 8.0])
    parser.add_argument("--limit", type=int, help="so many images, evenly spaced; all by default")
    parser.add_argument("--out", type=Path, required=True, help="folder for rows.json and report.md")
    options = parser.parse_args()
    bench = Bench(options.data, options.limit, options.expert, options.detector)
    path = options.out / "rows.json"
    known: dict[str, Row] = {}
    if path.exists():
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["key"] == bench.key:
            rows = [Row(**row) for row in tree["rows"]]
            known = {row.label: row for row in rows if row.curve in {*RIVALS, UNCOMPRESSED}}
    wanted = [known.get(UNCOMPRESSED) or bench.reference()]
    for curve, label, codec, budget_bytes in entries(options.codecs, options.rivals, options.kib):
        row = known.get(label) or bench.measure(curve, label, codec, budget_bytes)
        wanted.append(row)
        known[label] = row
        print(f"{label}: {row.kib:.2f} KiB, mIoU {row.miou}, lattice {row.lattice:.2f}", file=sys.stderr, flush=True)
        tree = {"key": bench.key, "rows": [asdict(each) for each in ({UNCOMPRESSED: wanted[0]} | known).values()]}
        write_atomically(path, json_bytes(tree))
    text = report(wanted, list(bench.experts), options.kib)
    write_atomically(options.out / "report.md", text.encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
