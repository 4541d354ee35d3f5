"""Options that several commands share."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import torch

from gosvae.codecs.registry import option_names
from gosvae.codecs.slices import DEFAULT_OPTIONS, StreamOptions
from gosvae.datasets.geometry import GeometryConfig
from gosvae.errors import ConfigError, MissingDependencyError
from gosvae.evaluation.features import FeatureExtractor, load_features
from gosvae.experts.base import Expert
from gosvae.losses.perceptual import PERCEPTUAL_NAMES, PerceptualLoss, default_perceptual, load_perceptual
from gosvae.packets import DEFAULT_MTU_BYTES
from gosvae.precision import Precision

DATA_HELP = (
    "images as NAME[:PATH][@SPLIT]: camvid:PATH, cityscapes:PATH, ade20k:PATH, folder:PATH, streets[:COUNT]; "
    "a plain path is a folder of images; parts joined by + are mixed"
)
EXPERT_HELP = (
    "perception model: embedded, the name of another one of the package, hf:ORGANISATION/MODEL, a folder "
    "(transformers, or gosvae train-expert), or a .onnx, .tflite, .pt2 or .pt file with a .json beside it; .pt2 and "
    ".pt need --trust"
)


def add_geometry(parser: argparse.ArgumentParser) -> None:
    """Add `--resize` and `--crop`."""
    parser.add_argument(
        "--resize", type=parse_size, metavar="HxW", help="resize images to this size; default: that of the data set"
    )
    parser.add_argument("--crop", type=parse_size, metavar="HxW", help="then cut this size out of the centre")


def geometry_of(options: argparse.Namespace) -> GeometryConfig | None:
    """Return the geometry that the options ask for; None leaves each dataset its own."""
    if options.resize is None and options.crop is None:
        return None
    resize, crop = options.resize or (None, None), options.crop or (None, None)
    return GeometryConfig(resize_height=resize[0], resize_width=resize[1], crop_height=crop[0], crop_width=crop[1])


def parse_size(text: str) -> tuple[int, int]:
    """Return height and width from text such as `256x512`, for argparse."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or "0" in match.groups():
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH such as 256x512, got {text!r}")
    return int(match[1]), int(match[2])


def parse_kib(text: str) -> float:
    """Return a size in KiB, above 0, for argparse."""
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise argparse.ArgumentTypeError(f"expected a size in KiB above 0 such as 0.5, got {text!r}")
    return size


def micro_batch_of(text: str) -> int | Literal["auto"]:
    """Return a number of images from 1, or `auto`, for argparse."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of images from 1, or auto, got {text!r}")
    return int(text)


def standard_input() -> BinaryIO:
    """Return the bytes of standard input, which commands read for the source `-` alone.

    Raises:
        ConfigError: it is closed.
    """
    stream: BinaryIO | None = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise ConfigError("standard input is closed: name a file instead of -")
    return stream


def add_perceptual(parser: argparse.ArgumentParser, *, default: str) -> None:
    """Add `--lpips` and `--weights`."""
    parser.add_argument(
        "--lpips", choices=("auto", "none", *PERCEPTUAL_NAMES), default=default, help="perceptual distance to use"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FOLDER",
        help="folder with weights of perceptual distances and of the FID; default: the environment's GOSVAE_WEIGHTS",
    )


def perceptual_of(options: argparse.Namespace, device: str | torch.device = "cpu") -> PerceptualLoss | None:
    """Return the perceptual distance that the options ask for, on a device.

    Raises:
        MissingDependencyError: its weights are not found.
    """
    if options.lpips == "none":
        return None
    name = default_perceptual(options.weights) if options.lpips == "auto" else options.lpips
    return load_perceptual(name, options.weights).to(device)


def add_any_inception(parser: argparse.ArgumentParser) -> None:
    """Add `--any-inception`."""
    parser.add_argument(
        "--any-inception",
        action="store_true",
        help="take a file of Inception that is none of the published ones; tables then name it and do not say FID",
    )


def features_of(
    options: argparse.Namespace, expert: Expert | None, device: str | torch.device
) -> FeatureExtractor | None:
    """Return the network of the Fréchet distance that the options ask for, on a device; errors as `load_features`."""
    if options.frechet == "none":
        return None
    found = load_features(options.frechet, expert, options.weights, any_inception=options.any_inception)
    return found.to(device)


def add_run(parser: argparse.ArgumentParser, *, seed: bool = True, precision: bool = True) -> None:
    """Add `--max-minutes`, `--accelerator` and the other options of a training."""
    parser.add_argument(
        "--max-minutes", type=float, metavar="MINUTES",
        help="stop cleanly after this time; the same command continues",
    )  # fmt: skip
    if seed:
        parser.add_argument(
            "--seed", type=int, default=0, metavar="N", help="seed of initial weights, order of images and augmentation"
        )
    parser.add_argument("--accelerator", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to train")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="number of accelerators")
    if precision:
        parser.add_argument(
            "--precision", choices=("auto", "32", "bf16"), default="auto", help="arithmetic of the training"
        )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="number of processes that decode images")
    parser.add_argument("--cache-mib", type=int, default=1024, metavar="MIB", help="memory for decoded images")


JUDGING = ("micro_batch", "expert_cache", "expert_cache_gib")
"""Names of the options of `add_judging`, which are also those of `RunConfig`."""


def add_judging(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how frozen networks judge in a training."""
    parser.add_argument(
        "--micro-batch", type=micro_batch_of, default="auto", metavar="N",
        help="images that the expert takes at once, which bounds memory; gradients stay those of the batch; auto: "
        "as many as fit into a quarter of the GPU's memory, or into 2 GiB on a CPU",
    )  # fmt: skip
    parser.add_argument(
        "--expert-cache", type=Path, metavar="FOLDER",
        help="keep what the expert sees on whole images in this folder, in half precision; default: keep nothing",
    )  # fmt: skip
    parser.add_argument(
        "--expert-cache-gib", type=float, default=40.0, metavar="GIB", help="largest size of that folder in GiB"
    )


def add_packets(parser: argparse.ArgumentParser) -> None:
    """Add `--packets`, `--mtu` and `--seed`, which say how images are sent over a channel."""
    parser.add_argument(
        "--packets", type=int, default=8, metavar="N", help="number of packets of an image on a channel"
    )
    parser.add_argument(
        "--mtu", type=int, default=DEFAULT_MTU_BYTES, metavar="BYTES", help="size of the largest packet"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the channel's losses")


def stream_options(spec: str, *, effort: int = DEFAULT_OPTIONS.effort, slices: int = 1) -> StreamOptions:
    """Return the options of streams that are evaluated: several slices are interleaved.

    Options that the codec does not have are left out.
    """
    wanted = {"slices": slices, "layout": "interleaved" if slices > 1 else "bands", "effort": effort}
    names = option_names(spec)
    return StreamOptions(**{name: value for name, value in wanted.items() if name in names})  # type: ignore[arg-type]


@contextmanager
def plot_or_note() -> Iterator[None]:
    """Leave out the plot of this block, with a note, if its package is missing: the results are already written."""
    try:
        yield
    except MissingDependencyError as error:
        print(f"gosvae: no plot: {error}", file=sys.stderr)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the networks run; auto: on a GPU if there is one",
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add `--precision`."""
    parser.add_argument(
        "--precision", choices=get_args(Precision), default="32",
        help="arithmetic of a variable-rate codec's networks; auto: bf16 where the device computes in it, else 32 bits",
    )  # fmt: skip


def precision_of(spec: str, options: argparse.Namespace) -> Precision:
    """Return the precision that the options ask for if the codec has a choice, else 32 bits."""
    wanted: Precision = options.precision
    return wanted if "precision" in option_names(spec) else "32"


def device_of(options: argparse.Namespace) -> torch.device:
    """Return the device that the options ask for.

    Raises:
        ConfigError: a GPU is asked for, and there is none.
    """
    there = torch.cuda.is_available()
    if options.device == "cuda" and not there:
        raise ConfigError("--device cuda: this PyTorch sees no GPU; take --device cpu")
    return torch.device("cuda" if there and options.device != "cpu" else "cpu")
