#!/usr/bin/env python3
"""Measure one stream of a released codec with experts of several tasks that took no part in its training.

    scripts/tasks.py gosvae-variable-camvid avif --kib 0.5 1 2 3 --data camvid:PATH@val --limit 20 \\
        --detector fastestdet.onnx --out tasks.md

Each row is a codec at a budget, met image by image. The columns are

- the agreement of segmentation networks (`--expert`) with their own maps of the originals (mIoU),
- AP50 of the boxes of a detector against its own on the originals,
- the F1 score of edges, where the gradient of the brightness is above a threshold, within one pixel,
- the share of the ORB matches between an image and the next of the data set that are found again, within three pixels
  at both ends, in the reconstructions of the two; it needs OpenCV (`pip install opencv-python-headless`),
- with `--text`, the share of the words read on the originals that are read again on the reconstructions, in capitals or
  not, over all images; images without text say nothing. It needs `pip install rapidocr opencv-python-headless`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from gosvae.codecs.base import RateControlledCodec
from gosvae.codecs.registry import load_codec
from gosvae.datasets.base import Dataset
from gosvae.datasets.mixture import load_prepared
from gosvae.errors import ConfigError, RateError
from gosvae.experts.base import Expert
from gosvae.experts.registry import load_task_expert
from gosvae.files import write_atomically
from gosvae.metrics import ConfusionMatrix
from gosvae.tasks.boxes import Boxes, DetectionMeter
from gosvae.tasks.registry import load_task
from gosvae.tensors import ImageArray, image_to_tensor

EDGE = 0.08
"""Gradient of the brightness, from 0 to 1 over a pixel, from which there is an edge."""
KEYPOINTS = 500
NEAR_PIXELS = 3.0
SURE_TEXT = 0.7
"""Score from which a line of text counts as read."""
Matches = npt.NDArray[np.float32]


def edges(image_uint8_HW3: ImageArray) -> torch.Tensor:
    """Where the brightness has an edge, (H, W): Sobel's gradient, thinned to its largest values in a row or column."""
    grey = image_to_tensor(image_uint8_HW3).mean(dim=1, keepdim=True)
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    dx, dy = F.conv2d(padded, kernel[None, None]), F.conv2d(padded, kernel.T[None, None])
    strength = (dx.square() + dy.square()).sqrt()
    across = torch.where(
        dx.abs() >= dy.abs(), F.max_pool2d(strength, (1, 3), 1, (0, 1)), F.max_pool2d(strength, (3, 1), 1, (1, 0))
    )
    return ((strength >= EDGE) & (strength == across))[0, 0]


def edge_counts(original_HW: torch.Tensor, seen_HW: torch.Tensor) -> tuple[int, int, int, int]:
    """Edge pixels of the reconstruction that are near one of the original, and all; the same the other way round."""

    def near(a: torch.Tensor, b: torch.Tensor) -> int:
        return int((a & (F.max_pool2d(b[None, None].float(), 3, 1, 1)[0, 0] > 0)).sum())

    return near(seen_HW, original_HW), int(seen_HW.sum()), near(original_HW, seen_HW), int(original_HW.sum())


def orb_matches(first: ImageArray, second: ImageArray) -> Matches:
    """Places (x, y in the first, x, y in the second) of the mutual best matches of ORB features, (N, 4)."""
    import cv2

    orb = cv2.ORB_create(KEYPOINTS)
    (points_a, codes_a), (points_b, codes_b) = (
        orb.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None) for image in (first, second)
    )
    if codes_a is None or codes_b is None:
        return np.zeros((0, 4), np.float32)
    found = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(codes_a, codes_b)
    rows = [(*points_a[m.queryIdx].pt, *points_b[m.trainIdx].pt) for m in found if m.distance < 50]
    return np.array(rows, np.float32).reshape(-1, 4)


def found_again(original_N4: Matches, seen_M4: Matches) -> float | None:
    """Share of the matches that are found again; None without matches on the original."""
    if not len(original_N4):
        return None
    if not len(seen_M4):
        return 0.0
    away = (original_N4[:, None] - seen_M4[None]).reshape(len(original_N4), -1, 2, 2)
    near = (np.linalg.norm(away, axis=-1) <= NEAR_PIXELS).all(axis=-1)
    return float(near.any(axis=1).mean())


class TextReader:
    """The text networks of RapidOCR, which ONNX Runtime computes."""

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError as error:
            raise ConfigError(
                f"--text needs a package ({error}): pip install rapidocr opencv-python-headless"
            ) from None
        logging.getLogger("RapidOCR").setLevel(logging.ERROR)
        self._engine: Any = RapidOCR()

    def __call__(self, image: ImageArray) -> Counter[str]:
        """Words of an image, in small letters, that are read with a score of at least `SURE_TEXT`."""
        found = self._engine(np.ascontiguousarray(image[..., ::-1]))  # BGR
        lines = zip(found.txts or (), found.scores or (), strict=True)
        return Counter(word for text, score in lines if score >= SURE_TEXT for word in text.casefold().split())


@dataclass
class Row:
    """A codec at a budget, over all images."""

    label: str
    sizes: list[int] = field(default_factory=list)
    over: int = 0
    maps: dict[str, ConfusionMatrix] = field(default_factory=dict)
    boxes: DetectionMeter = field(default_factory=DetectionMeter)
    edges: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, np.int64))
    matches: list[float] = field(default_factory=list)
    words: int = 0
    words_again: int = 0

    def cells(self, detector: bool, text: bool) -> list[str]:
        """Values as text."""
        agreements = [m.mean_iou() for m in self.maps.values()]
        near, seen, back, real = (int(n) for n in self.edges)
        f1 = (near + back) / max(seen + real, 1)
        label = self.label + (f" (over budget on {self.over})" if self.over else "")
        values = [
            fmean(self.sizes) / 1024,
            *(m.value if m else float("nan") for m in agreements),
            *([self.boxes.values()["AP50"], self.boxes.values()["AP50:95"]] if detector else []),
            f1,
            fmean(self.matches) if self.matches else None,
            *([self.words_again / self.words if self.words else None] if text else []),
        ]
        return [label, *("-" if v is None else f"{v:.2f}" if i == 0 else f"{v:.3f}" for i, v in enumerate(values))]


class Bench:
    """Images, their neighbours, and what every judge sees on them."""

    def __init__(
        self,
        dataset: Dataset,
        limit: int,
        experts: Sequence[str],
        detector: Path | None,
        classes: Sequence[str],
        *,
        text: bool,
    ) -> None:
        self.experts: dict[str, Expert] = {}
        for name in experts:
            expert = load_task_expert(name)
            if not isinstance(expert, Expert):
                raise ConfigError(f"{name} does not segment: give a detector by --detector")
            self.experts[Path(name).name] = expert
        self.detector = None if detector is None else load_task_expert(detector, gradients=False)
        self.task = None if self.detector is None else load_task(self.detector)
        names = () if self.detector is None else self.detector.info.class_names
        if unknown := [name for name in classes if name not in names]:
            raise ConfigError(f"{unknown[0]!r} is no class of the detector; it has {', '.join(names) or 'none'}")
        self.classes = [names.index(name) for name in classes or names]
        self.reader = TextReader() if text else None
        count = min(limit, len(dataset) - 1)
        places = [i * (len(dataset) - 1) // count for i in range(count)]
        self.pairs = [(dataset[i].image_uint8_HW3, dataset[i + 1].image_uint8_HW3) for i in places]
        self.orb = find_spec("cv2") is not None
        self.seen = [self.see(first) for first, _ in self.pairs]
        self.matches = [orb_matches(*pair) if self.orb else None for pair in self.pairs]

    @torch.inference_mode()
    def see(self, image: ImageArray) -> dict[str, Any]:
        """What each judge sees."""
        x = image_to_tensor(image)
        seen: dict[str, Any] = {name: expert.class_map(x)[0].numpy() for name, expert in self.experts.items()}
        seen["edges"] = edges(image)
        if self.reader is not None:
            seen["words"] = self.reader(image)
        if self.detector is not None and self.task is not None:
            found: Boxes = self.task.results(self.detector(x))[0]
            kept = np.isin(found.classes_N, self.classes)
            seen["boxes"] = Boxes(found.corners_N4[kept], found.scores_N[kept], found.classes_N[kept])
        return seen

    def measure(self, label: str, send: Callable[[ImageArray], tuple[ImageArray, int, bool]]) -> Row:
        """A way to send an image: reconstruction, bytes, and whether it is over the budget."""
        row = Row(label, maps={name: ConfusionMatrix(len(e.info.class_names)) for name, e in self.experts.items()})
        for (first, second), original, matches in zip(self.pairs, self.seen, self.matches, strict=True):
            picture, size, over = send(first)
            row.sizes.append(size)
            row.over += over
            seen = self.see(picture)
            for name, counts in row.maps.items():
                counts.update(seen[name], original[name])
            if "boxes" in seen:
                row.boxes.update(original["boxes"], seen["boxes"])
            if "words" in seen:
                row.words += original["words"].total()
                row.words_again += (original["words"] & seen["words"]).total()
            row.edges += np.array(edge_counts(original["edges"], seen["edges"]))
            share = None if matches is None else found_again(matches, orb_matches(picture, send(second)[0]))
            row.matches += [] if share is None else [share]
        return row


def sender(codec: RateControlledCodec, budget_bytes: int) -> Callable[[ImageArray], tuple[ImageArray, int, bool]]:
    """Compression to a budget and back."""

    @torch.inference_mode()
    def send(image: ImageArray) -> tuple[ImageArray, int, bool]:
        try:
            data, over = codec.compress_to_budget(image, budget_bytes), False
        except RateError:
            data, over = codec.compress_smallest(image), True
        return codec.decompress(data), len(data), over

    return send


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codecs", nargs="+", help="codecs of any rate")
    parser.add_argument("--kib", type=float, nargs="+", default=[0.5, 1.0, 2.0, 3.0])
    parser.add_argument("--data", required=True, help="such as camvid:PATH@val")
    parser.add_argument("--limit", type=int, default=20, help="number of images, evenly spaced")
    parser.add_argument("--expert", nargs="*", default=["embedded"], help="segmentation networks")
    parser.add_argument("--detector", type=Path, help="ONNX file of a detector with its card")
    parser.add_argument("--classes", nargs="+", default=[], help="classes of the detector that count; all by default")
    parser.add_argument("--text", action="store_true", help="read text on the images, too")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file of the table")
    options = parser.parse_args()
    dataset = load_prepared(options.data, default_split="val")
    bench = Bench(dataset, options.limit, options.expert, options.detector, options.classes, text=options.text)
    detected = ["boxes AP50", "boxes AP50:95"] if options.detector else []
    header = ["codec", "KiB", *(f"{name}, mIoU" for name in bench.experts), *detected, "edges F1", "ORB matches"]
    header += ["words"] if options.text else []
    lines = [f"| {' | '.join(header)} |", "|---|" + "--:|" * (len(header) - 1)]
    for name in options.codecs:
        codec = load_codec(name)
        if not isinstance(codec, RateControlledCodec):
            raise ConfigError(f"{name} has no rate to set")
        for kib in options.kib:
            row = bench.measure(f"{name}, {kib:g} KiB", sender(codec, int(1024 * kib)))
            lines.append(f"| {' | '.join(row.cells(options.detector is not None, options.text))} |")
            print(lines[-1], file=sys.stderr, flush=True)
            write_atomically(options.out, ("\n".join(lines) + "\n").encode())
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
