#!/usr/bin/env python3
"""Draw a gallery: an image at several sizes of its stream, and the results of experts on each reconstruction.

    scripts/gallery.py gosvae-streets --kib 0.3 1 4 --data camvid:PATH@val --image 32 \\
        --expert map=embedded boxes=fastestdet.onnx edges --out docs/assets/gallery.webp

Any images and experts will do: `--data folder:my-images`, and for `--expert` whatever `gosvae evaluate` takes. The name
`edges` stands for the edges of the brightness, which need no network.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from gosvae.codecs.registry import load_codec
from gosvae.datasets.base import Dataset, Sample
from gosvae.datasets.mixture import load_prepared
from gosvae.errors import ConfigError
from gosvae.evaluation.pictures import draw_pictures
from gosvae.evaluation.protocol import CodecEntry, evaluate
from gosvae.evaluation.tables import markdown_table
from gosvae.experts.base import Expert, ExpertInfo, TaskExpert
from gosvae.experts.registry import load_task_expert
from gosvae.tasks.group import parse_experts

EDGES = "edges"
EDGE = 0.06
"""Gradient of the brightness, from 0 to 1 over a pixel, from which there is an edge."""


class Chosen(Dataset):
    """Some images of a data set, by their numbers."""

    class_names = ()

    def __init__(self, dataset: Dataset, numbers: Sequence[int]) -> None:
        self.name, self._dataset, self._numbers = dataset.name, dataset, tuple(numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        return replace(self._dataset[self._numbers[index]], labels_uint8_HW=None)


class Edges(TaskExpert):
    """Edges of the brightness as a binary map, by Sobel's gradient."""

    task = "lanes"

    def __init__(self) -> None:
        super().__init__(ExpertInfo(EDGES, (), 256, 512))
        self.register_buffer("kernel_33", torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8)
        self.freeze()

    def dense(self, x_B3HW: Tensor) -> Tensor:
        """Return logits (B, 1, H, W), above 0 where there is an edge."""
        kernel = self.get_buffer("kernel_33")
        grey = F.pad(x_B3HW.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        dx, dy = F.conv2d(grey, kernel[None, None]), F.conv2d(grey, kernel.T[None, None])
        return ((dx.square() + dy.square()).sqrt() - EDGE) / EDGE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec", help="a codec of any rate")
    parser.add_argument("--kib", type=float, nargs="+", default=[0.3, 1.0, 4.0], help="sizes of the stream")
    parser.add_argument("--data", required=True, help="such as camvid:PATH@val or folder:my-images")
    parser.add_argument("--image", type=int, nargs="+", default=[0], help="numbers of the images in the data set")
    parser.add_argument("--expert", nargs="+", default=["map=embedded", EDGES], help="experts as NAME=EXPERT")
    parser.add_argument("--width", type=int, default=384, help="width of an image in the picture, in pixels")
    parser.add_argument("--trust", action="store_true", help="load experts that are programs")
    parser.add_argument("--out", type=Path, required=True, help="picture, such as gallery.webp or gallery.png")
    options = parser.parse_args()
    expert: Expert | None = None
    judges: dict[str, TaskExpert] = {}
    for named in parse_experts(options.expert, weighted=False):
        loaded = Edges() if named.spec == EDGES else load_task_expert(named.spec, gradients=False, trust=options.trust)
        if expert is None and isinstance(loaded, Expert):
            expert = loaded
        else:
            judges[named.name] = loaded
    dataset = load_prepared(options.data, default_split="val")
    if max(options.image) >= len(dataset):
        raise ConfigError(f"image {max(options.image)}: the data set has {len(dataset)}, counted from 0")
    codec = load_codec(options.codec)
    entries = [CodecEntry(f"{kib:g} KiB", codec, budget_bytes=int(1024 * kib)) for kib in options.kib]
    kept = list(range(len(options.image)))
    made = evaluate(
        entries,
        Chosen(dataset, options.image),
        expert,
        judges=judges,
        use_labels=False,
        keep_images=kept,
        progress=True,
    )
    print(markdown_table(made))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.png"
        draw_pictures(made, path, tile_width=options.width)
        with Image.open(path) as picture:
            picture.convert("RGB").save(options.out, quality=80, method=6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
