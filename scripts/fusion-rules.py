#!/usr/bin/env python3
"""Measure agreement and mIoU of rules and networks that make one picture of the two layers of a stream.

    scripts/fusion-rules.py --data camvid:PATH@val --limit 8 --expert expert-camvid expert-idd
    scripts/fusion-rules.py --data camvid:PATH@val --limit 8 --expert expert-camvid --fusion runs/fusion

The task layer has `--kib`, the detail layer is coded at `--speed`. A row is a picture that the receiver could show,
with the mean bytes of all that it needs. With `--fusion`, a trained network takes the place of the rules; it also shows
its picture of the detail layer alone. `--every 10` takes the images that `scripts/train-fusion.py make` leaves out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import get_args

import numpy as np
import torch
from PIL import Image, ImageFilter

from gosvae.codecs.av1 import Tuning
from gosvae.codecs.detail import decode_detail, encode_detail
from gosvae.codecs.fusion import LearnedFusion, load_fusion
from gosvae.codecs.registry import load_trained_codec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.datasets.common import in_classes
from gosvae.datasets.mixture import load_prepared
from gosvae.experts.registry import load_expert
from gosvae.metrics import ConfusionMatrix, mean_squared_error
from gosvae.tensors import ImageArray, image_to_tensor
from gosvae.units import psnr_db

Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]


def blurred(picture: np.ndarray) -> np.ndarray:
    """Return the picture behind a Gaussian of 2 pixels."""
    image = Image.fromarray(picture.astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(2))).astype(np.float32)


RULES: dict[str, Rule] = {
    "mean, 70 % AV1": lambda base, detail: 0.3 * base + 0.7 * detail,
    "mean, 50 % AV1": lambda base, detail: 0.5 * base + 0.5 * detail,
    "low of AV1, high of the task layer": lambda base, detail: blurred(detail) + base - blurred(base),
    "AV1 and half of the high of the task layer": lambda base, detail: detail + 0.5 * (base - blurred(base)),
}
"""Rules by what they do; low and high are the frequencies below and above the Gaussian."""


Pictures = Iterator[tuple[str, float, list[ImageArray]]]
"""Name of a picture, its mean size in KiB, and the pictures of all images."""


def pictures(
    images: list[ImageArray],
    task: VariableRateCodec,
    sizes_kib: Sequence[float],
    frames: Sequence[tuple[int, int]],
    speed: int,
    tuning: Tuning,
    fusion: LearnedFusion | None,
) -> Pictures:
    """Yield all pictures that a receiver could show."""
    of_kib: dict[float, tuple[float, list[ImageArray]]] = {}
    for kib in sizes_kib:
        streams = [task.compress_to_budget(image, int(1024 * kib)) for image in images]
        of_kib[kib] = fmean(map(len, streams)) / 1024, [task.decompress(stream) for stream in streams]
        yield "task layer", *of_kib[kib]
    for reduction, quality in frames:
        slices = [encode_detail(image, reduction, quality, speed=speed, tuning=tuning) for image in images]
        details = [decode_detail(s, *i.shape[:2]) for s, i in zip(slices, images, strict=True)]
        name = f"AV1{f' at 1/{reduction}' if reduction > 1 else ''}, quality {quality}"
        detail_kib = fmean(map(len, slices)) / 1024
        yield name, detail_kib, [detail.image_uint8_HW3 for detail in details]
        if fusion is not None:
            yield f"{name}, network", detail_kib, [fusion(None, detail) for detail in details]
        for base_kib, bases in of_kib.values():
            both = list(zip(bases, details, strict=True))
            if fusion is not None:
                title = f"{name}, network with a task layer of {base_kib:.2f} KiB"
                yield title, base_kib + detail_kib, [fusion(base, detail) for base, detail in both]
                continue
            for title, rule in RULES.items():
                mixed = (rule(b.astype(np.float32), d.image_uint8_HW3.astype(np.float32)) for b, d in both)
                shown = [np.rint(each).clip(0, 255).astype(np.uint8) for each in mixed]
                yield f"{name}, with the task layer: {title}", base_kib + detail_kib, shown


def parse_frame(text: str) -> tuple[int, int]:
    """Return reduction and quality of `R:Q`."""
    reduction, quality = map(int, text.split(":"))
    return reduction, quality


@torch.inference_mode()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--task", default="gosvae-variable-camvid", help="codec of the task layer")
    parser.add_argument("--kib", type=float, nargs="*", default=[0.8], help="sizes of the task layer")
    parser.add_argument(
        "--frames", type=parse_frame, nargs="+", default=[(1, 20), (1, 30), (1, 45), (2, 60)], metavar="R:Q",
        help="reductions and qualities of the detail layer",
    )  # fmt: skip
    parser.add_argument("--speed", type=int, default=8, help="speed of the AV1 encoder")
    parser.add_argument("--tuning", default="faithful", choices=get_args(Tuning), help="whom the AV1 encoder serves")
    parser.add_argument("--fusion", type=Path, help="folder of a trained network")
    parser.add_argument("--every", type=int, default=1, help="every such image of the data")
    parser.add_argument("--expert", nargs="+", default=["embedded"])
    parser.add_argument("--limit", type=int, default=8)
    options = parser.parse_args()
    task = load_trained_codec(options.task)
    assert isinstance(task, VariableRateCodec)
    dataset = load_prepared(options.data, default_split="val")
    numbers = range(0, len(dataset), options.every)
    count = min(options.limit, len(numbers))
    chosen = [numbers[n * len(numbers) // count] for n in range(count)]
    fusion = load_fusion(options.fusion) if options.fusion else None
    images = [dataset[i].image_uint8_HW3 for i in chosen]
    experts = [load_expert(name) for name in options.expert]
    fitting = [in_classes(dataset, expert.info.class_names) for expert in experts]
    maps = [[expert.class_map(image_to_tensor(image))[0].numpy() for image in images] for expert in experts]
    print("| picture | KiB | PSNR, dB |" + "".join(f" {name}: agreement | mIoU |" for name in options.expert))
    print("|---|--:|--:|" + "--:|--:|" * len(experts))
    for name, kib, shown in pictures(images, task, options.kib, options.frames, options.speed, options.tuning, fusion):
        cells = f" {fmean(psnr_db(mean_squared_error(*pair)) for pair in zip(images, shown, strict=True)):.1f} |"
        for expert, data, own in zip(experts, fitting, maps, strict=True):
            agreement, accuracy = (ConfusionMatrix(len(expert.info.class_names)) for _ in range(2))
            for n, picture in enumerate(shown):
                seen_HW = expert.class_map(image_to_tensor(picture))[0].numpy()
                agreement.update(seen_HW, own[n])
                labels_HW = data[chosen[n]].labels_uint8_HW
                if labels_HW is not None and data.class_names == expert.info.class_names:
                    accuracy.update(seen_HW, labels_HW)
            found = [each.mean_iou() for each in (agreement, accuracy)]
            cells += "".join(f" {value.value:.3f} |" if value else " - |" for value in found)
        print(f"| {name} | {kib:.2f} |{cells}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
