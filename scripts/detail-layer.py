#!/usr/bin/env python3
"""Measure settings of the AV1 encoder with perception models, and the cost of several slices of the detail layer.

    scripts/detail-layer.py settings --data camvid:PATH@seen --every 10 --limit 9 --expert expert-camvid
    scripts/detail-layer.py slices --data camvid:PATH@seen --every 10 --limit 9

`settings` prints bytes without container boxes, PSNR, and agreement, the mIoU against an expert's own map of the
original. A gain is the factor by which colours are stronger before the encoder. `slices` codes pictures for machines
within budgets, and prints the PSNR of streams that are cut behind each slice of the detail layer.
"""

from __future__ import annotations

import argparse
import io
import sys
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image

from gosvae.codecs.av1 import frame_of_avif
from gosvae.codecs.chroma import strengthened, weakened
from gosvae.codecs.layered import LayeredCodec
from gosvae.codecs.registry import load_codec
from gosvae.codecs.slices import StreamOptions
from gosvae.codecs.truncation import truncate
from gosvae.datasets.mixture import load_prepared
from gosvae.errors import RateError
from gosvae.experts.registry import load_expert
from gosvae.metrics import ConfusionMatrix, mean_squared_error
from gosvae.tensors import ImageArray, image_to_tensor
from gosvae.units import psnr_db

FILTERS_OFF = {"enable-cdef": "0", "loopfilter-control": "0"}
SETTINGS: dict[str, tuple[str, dict[str, str], int]] = {
    "4:2:0, as AVIF files": ("4:2:0", {}, 2),
    "4:2:0, tuned for PSNR": ("4:2:0", {"tune": "psnr"}, 2),
    "4:2:0, tuned for SSIM": ("4:2:0", {"tune": "ssim"}, 2),
    "4:2:0 without filters": ("4:2:0", FILTERS_OFF, 2),
    "4:4:4 without filters": ("4:4:4", FILTERS_OFF, 2),
    "4:4:4 without filters, gain 1.5": ("4:4:4", FILTERS_OFF, 3),
    "4:4:4 without filters, gain 2": ("4:4:4", FILTERS_OFF, 4),
}
"""Subsampling, settings of libaom, and twice the gain."""


def coded(image: ImageArray, quality: int, setting: tuple[str, dict[str, str], int]) -> tuple[int, ImageArray]:
    """Return the bytes of the frame of an image and its picture."""
    subsampling, advanced, gain = setting
    options: dict[str, Any] = {"quality": quality, "speed": 6, "subsampling": subsampling, "advanced": advanced}
    file = io.BytesIO()
    Image.fromarray(strengthened(image, gain)).save(file, "AVIF", max_threads=1, range="full", **options)
    with Image.open(file) as picture:
        shown = weakened(np.asarray(picture.convert("RGB")), gain)
    return len(frame_of_avif(file.getvalue(), image.shape[0], image.shape[1]).data), shown


def decibels(images: list[ImageArray], shown: list[ImageArray]) -> float:
    """Return the mean PSNR."""
    return fmean(psnr_db(mean_squared_error(*pair)) for pair in zip(images, shown, strict=True))


@torch.inference_mode()
def settings(images: list[ImageArray], options: argparse.Namespace) -> None:
    """Print the table of the settings."""
    experts = [load_expert(name) for name in options.expert]
    maps = [[expert.class_map(image_to_tensor(image))[0].numpy() for image in images] for expert in experts]
    print("| setting | quality | KiB | PSNR, dB |" + "".join(f" {name} |" for name in options.expert))
    print("|---|--:|--:|--:|" + "--:|" * len(experts))
    for title in options.only or SETTINGS:
        for quality in options.quality:
            made = [coded(image, quality, SETTINGS[title]) for image in images]
            cells = f"{fmean(size for size, _ in made) / 1024:.2f} | {decibels(images, [p for _, p in made]):.1f} |"
            for expert, own in zip(experts, maps, strict=True):
                matrix = ConfusionMatrix(len(expert.info.class_names))
                for (_, picture), map_HW in zip(made, own, strict=True):
                    matrix.update(expert.class_map(image_to_tensor(picture))[0].numpy(), map_HW)
                found = matrix.mean_iou()
                cells += f" {found.value:.3f} |" if found else " - |"
            print(f"| {title} | {quality} | {cells}", flush=True)


def slices(images: list[ImageArray], options: argparse.Namespace) -> None:
    """Print the table of the slices."""
    print("| slices | budget, KiB | cut to, KiB | taken | PSNR, dB |\n|--:|--:|--:|--:|--:|")
    for count in options.slices:
        codec = load_codec("layered", options=StreamOptions(purpose="machine", detail_slices=count))
        assert isinstance(codec, LayeredCodec)
        for kib in options.kib:
            streams = [codec.compress_to_budget(image, int(1024 * kib)) for image in images]
            for halving in range(count):
                limit = kib / 2**halving
                try:
                    cut = [truncate(stream, limit) for stream in streams]
                except RateError:
                    continue
                shown, taken = [codec.decompress(data) for data in cut], fmean(map(len, cut)) / 1024
                print(f"| {count} | {kib:g} | {limit:g} | {taken:.2f} | {decibels(images, shown):.1f} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("settings", "slices"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--every", type=int, default=1, help="every such image of the data")
    parser.add_argument("--limit", type=int, default=9)
    parser.add_argument("--expert", nargs="+", default=["embedded"])
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), help="settings; all by default")
    parser.add_argument("--quality", type=int, nargs="+", default=[21, 28, 36])
    parser.add_argument("--slices", type=int, nargs="+", default=[1, 2, 3], help="numbers of slices")
    parser.add_argument("--kib", type=float, nargs="+", default=[8.0, 16.0], help="budgets")
    options = parser.parse_args()
    dataset = load_prepared(options.data, default_split="train")
    numbers = range(0, len(dataset), options.every)
    count = min(options.limit, len(numbers))
    images = [dataset[numbers[n * len(numbers) // count]].image_uint8_HW3 for n in range(count)]
    (settings if options.table == "settings" else slices)(images, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
