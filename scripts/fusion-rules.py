#!/usr/bin/env python3
"""Rules without training that make one picture of the two layers of a stream: agreement and mIoU of each.

    scripts/fusion-rules.py --data camvid:PATH@val --limit 8 --expert expert-camvid expert-idd

The task layer has `--kib`, the detail layer is coded at speed 8. A row is a picture that the receiver could show, with
the mean bytes of all that it needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from statistics import fmean

import numpy as np
import torch
from PIL import Image, ImageFilter

from gosvae.codecs.detail import decode_detail, encode_detail
from gosvae.codecs.registry import load_trained_codec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.datasets.common import in_classes
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.experts.registry import load_expert
from gosvae.metrics import ConfusionMatrix
from gosvae.tensors import ImageArray, image_to_tensor

Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]
FRAMES = ((1, 20), (1, 30), (1, 45), (2, 60))
"""Reduction and quality of the detail layers."""


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


def pictures(
    images: list[ImageArray], task: VariableRateCodec, budget_bytes: int
) -> Iterator[tuple[str, float, list[ImageArray]]]:
    """Yield the name of a picture, its mean size in KiB, and the pictures of all images."""
    streams = [task.compress_to_budget(image, budget_bytes) for image in images]
    bases, base_kib = [task.decompress(stream) for stream in streams], fmean(map(len, streams)) / 1024
    yield "task layer", base_kib, bases
    for reduction, quality in FRAMES:
        slices = [encode_detail(image, reduction, quality, speed=8) for image in images]
        details = [decode_detail(s, *i.shape[:2]).image_uint8_HW3 for s, i in zip(slices, images, strict=True)]
        name, detail_kib = f"AV1 at 1/{reduction}, quality {quality}", fmean(map(len, slices)) / 1024
        yield name, detail_kib, details
        for title, rule in RULES.items():
            mixed = (rule(b.astype(np.float32), d.astype(np.float32)) for b, d in zip(bases, details, strict=True))
            yield f"{name}; {title}", base_kib + detail_kib, [np.rint(m).clip(0, 255).astype(np.uint8) for m in mixed]


@torch.inference_mode()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--task", default="gosvae-variable-camvid", help="codec of the task layer")
    parser.add_argument("--kib", type=float, default=0.8, help="size of the task layer")
    parser.add_argument("--expert", nargs="+", default=["embedded"])
    parser.add_argument("--limit", type=int, default=8)
    options = parser.parse_args()
    task = load_trained_codec(options.task)
    assert isinstance(task, VariableRateCodec)
    dataset = EvenlySpaced(load_prepared(options.data, default_split="val"), options.limit)
    images = [dataset[i].image_uint8_HW3 for i in range(len(dataset))]
    experts = [load_expert(name) for name in options.expert]
    fitting = [in_classes(dataset, expert.info.class_names) for expert in experts]
    maps = [[expert.class_map(image_to_tensor(image))[0].numpy() for image in images] for expert in experts]
    print("| picture | KiB |" + "".join(f" {name}: agreement | mIoU |" for name in options.expert))
    print("|---|--:|" + "--:|--:|" * len(experts))
    for name, kib, shown in pictures(images, task, int(1024 * options.kib)):
        cells = ""
        for expert, data, own in zip(experts, fitting, maps, strict=True):
            agreement, accuracy = (ConfusionMatrix(len(expert.info.class_names)) for _ in range(2))
            for n, picture in enumerate(shown):
                seen_HW = expert.class_map(image_to_tensor(picture))[0].numpy()
                agreement.update(seen_HW, own[n])
                labels_HW = data[n].labels_uint8_HW
                if labels_HW is not None and data.class_names == expert.info.class_names:
                    accuracy.update(seen_HW, labels_HW)
            found = [each.mean_iou() for each in (agreement, accuracy)]
            cells += "".join(f" {value.value:.3f} |" if value else " - |" for value in found)
        print(f"| {name} | {kib:.2f} |{cells}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
