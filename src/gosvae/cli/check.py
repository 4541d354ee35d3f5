"""`gosvae check`: whether an expert and a data set are fit for a training, in a minute."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from gosvae.cli.loading import add_loading, loading_of
from gosvae.cli.options import DATA_HELP, EXPERT_HELP, add_device, add_geometry, device_of, geometry_of
from gosvae.datasets.base import Dataset
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.evaluation.expert_check import check_expert
from gosvae.evaluation.task_check import check_task_expert
from gosvae.experts.base import Expert, TaskExpert
from gosvae.experts.onnx.expert import OnnxExpert, OnnxSegmenter, difference_from_runtime
from gosvae.experts.onnx.network import OnnxNetwork
from gosvae.images import write_image
from gosvae.tensors import ImageArray

EXAMPLE = """example:
  gosvae check --expert street.pt2 --trust --data folder:images --out check.png
  gosvae check --expert detector.onnx --data folder:images --out check.png
"""


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae check`."""
    parser.epilog = EXAMPLE
    parser.add_argument("--expert", default="embedded", metavar="EXPERT", help=EXPERT_HELP)
    parser.add_argument("--data", required=True, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--images", type=int, default=4, metavar="N", help="number of images, evenly spaced")
    parser.add_argument("--out", type=Path, metavar="FILE", help="picture of the images and the expert's maps of them")
    add_loading(parser)
    add_geometry(parser)
    add_device(parser)
    parser.set_defaults(run=run_check)


def run_check(options: argparse.Namespace) -> int:
    """Print what the expert sees and what is wrong; return 1 if something is."""
    dataset = load_prepared(options.data, default_split="val", geometry=geometry_of(options))
    expert = loading_of(options).load_task_expert(options.expert, gradients=False)
    expert.to(device_of(options))
    if isinstance(expert, OnnxSegmenter | OnnxExpert) and isinstance(expert.model.network, OnnxNetwork):
        compared = difference_from_runtime(expert, _pictures(dataset, options.images))
        print(f"ONNX Runtime: largest difference {compared.difference:.2g} of values up to {compared.largest:.3g}")
    if not isinstance(expert, Expert):
        return _check_task(expert, dataset, options)
    result = check_expert(expert, dataset, images=options.images)
    print(f"expert: {expert.info.name}, {len(result.class_names)} classes, {result.forward_ms:.0f} ms an image")
    print(f"data: {dataset.name}, {result.image_count} of {len(dataset)} images")
    print(f"gradient at the pixels: {result.gradient:.2e}")
    if result.miou is not None:
        print(f"mIoU with the labels: {result.miou:.3f}")
    print("share of the pixels:")
    for name, share in sorted(zip(result.class_names, result.shares, strict=True), key=lambda pair: -pair[1]):
        print(f"  {100 * share:5.1f} %  {name}")
    return _end(result.picture_uint8_HW3, result.problems, options)


def _pictures(dataset: Dataset, images: int) -> Iterator[ImageArray]:
    """Yield evenly spaced images."""
    some = EvenlySpaced(dataset, max(images, 0))
    return (some[i].image_uint8_HW3 for i in range(len(some)))


def _check_task(expert: TaskExpert, dataset: Dataset, options: argparse.Namespace) -> int:
    """Print what an expert of another task than segmentation sees and what is wrong; return 1 if something is."""
    result = check_task_expert(expert, dataset, images=options.images)
    print(f"expert: {expert.info.name}, {result.task}, {result.forward_ms:.0f} ms an image")
    print(f"data: {dataset.name}, {result.image_count} of {len(dataset)} images")
    print(
        "gradient at the pixels: "
        + ("none, it can judge only" if result.gradient is None else f"{result.gradient:.2e}")
    )
    print(f"distance of images at an eighth of their size: {result.distance:.4g}")
    for name, value in result.measures.items():
        print(f"{name} of images at an eighth of their size: " + ("-" if value is None else f"{value:.3f}"))
    return _end(result.picture_uint8_HW3, result.problems, options)


def _end(picture_uint8_HW3: ImageArray, problems: Sequence[str], options: argparse.Namespace) -> int:
    if options.out:
        write_image(options.out, picture_uint8_HW3)
        print(f"written: {options.out}")
    for problem in problems:
        print(f"wrong: {problem}")
    print("nothing is wrong" if not problems else f"problems: {len(problems)}")
    return 1 if problems else 0
