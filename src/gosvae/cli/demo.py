"""`gosvae demo`: compare the package's models with classical codecs on generated scenes or on the user's images."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gosvae.cli.demo_video import run_demo_video
from gosvae.cli.evaluate import write_results
from gosvae.cli.loading import add_loading, experts_of, loading_of
from gosvae.cli.options import EXPERT_HELP
from gosvae.codecs.classical import load_classical
from gosvae.codecs.classical_base import ClassicalCodec
from gosvae.codecs.registry import DEFAULT_CODEC, PAPER_CODEC, embedded_codecs, load_trained_codec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.datasets.base import Dataset, Sample
from gosvae.datasets.folder import ImageFolder
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.errors import ConfigError, MissingDependencyError
from gosvae.evaluation.protocol import CodecEntry, evaluate
from gosvae.evaluation.tables import terminal_table

SHOWN = (DEFAULT_CODEC, "gosvae-compact-camvid", "vqvae-camvid", PAPER_CODEC)
"""Names of the package's codecs that the demo compares, the paper's codec last."""
LEVELS = (64, 128, 192)
"""Levels at which the demo shows codecs of variable rate."""
LONGEST_SIDE = 1024
"""Number of pixels of the longest side; larger pictures are scaled down, so that the demo stays quick."""


@dataclass
class _Shrunk(Dataset):
    """Dataset whose pictures are scaled down to at most LONGEST_SIDE pixels on a side."""

    dataset: Dataset

    def __post_init__(self) -> None:
        self.name, self.class_names = self.dataset.name, self.dataset.class_names

    def __len__(self) -> int:
        return len(self.dataset)

    def shot(self, index: int) -> str:
        return self.dataset.shot(index)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        picture = Image.fromarray(sample.image_uint8_HW3)
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC)
        return Sample(np.array(picture), None, sample.name)


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae demo`."""
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="folder of your own pictures; default: generated street scenes"
    )
    parser.add_argument(
        "--expert", action="append", metavar="EXPERT", help=f"{EXPERT_HELP}; repeatable; default: embedded"
    )
    add_loading(parser)
    parser.add_argument("--count", type=int, default=8, metavar="N", help="number of pictures")
    parser.add_argument(
        "--video", nargs="?", const="", metavar="CLIP",
        help="show a clip side by side with AV1 at as many bits: a video file, a folder of frames (with --fps), or, "
        "without a value, a generated street",
    )  # fmt: skip
    parser.add_argument(
        "--fps", dest="frames_per_second", type=float, metavar="N", help="frames a second of a folder of frames"
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="FOLDER", help="folder for the results")
    parser.set_defaults(run=run_demo)


def entries_of_the_package() -> list[CodecEntry]:
    """Return the installed codecs of `SHOWN` as entries; a codec of variable rate has one for each of `LEVELS`."""
    entries = []
    for name in SHOWN:
        if name not in embedded_codecs():
            continue
        codec = load_trained_codec(name)
        if isinstance(codec, VariableRateCodec):
            entries += [CodecEntry(f"{name}:{level}", codec.at(level), curve=name) for level in LEVELS]
        else:
            entries.append(CodecEntry(name, codec))
    return entries


def _baselines() -> list[ClassicalCodec]:
    """Return the classical codecs to compare with; print a note for each that is not installed."""
    codecs: list[ClassicalCodec] = []
    for name in ("avif", "jpegxl", "webp", "jpeg"):
        try:
            codecs.append(load_classical(name))
        except MissingDependencyError as error:
            print(f"gosvae: left out: {error}", file=sys.stderr)
    return codecs


def run_demo(options: argparse.Namespace) -> int:
    """Evaluate the package's models and classical codecs at similar bytes; print a table and write a picture."""
    if options.video is not None:
        return run_demo_video(options)
    dataset: Dataset
    if options.count < 1:
        raise ConfigError(f"--count must be at least 1, got {options.count}")
    if options.images is None:
        dataset = load_prepared(f"streets:{options.count}", default_split="test")
    else:
        dataset = EvenlySpaced(_Shrunk(ImageFolder(options.images)), options.count)
    if not embedded_codecs():
        raise ConfigError("this installation has no models of its own: install gosvae again, or use gosvae evaluate")
    entries = entries_of_the_package()
    matched = (entries[len(LEVELS) // 2].label, entries[-1].label)
    baselines = _baselines()
    entries += [
        CodecEntry(f"{codec.name} at {label}", codec, match=label)
        for label in dict.fromkeys(matched)
        for codec in baselines
    ]
    expert, judges = experts_of(options, torch.device("cpu"), loading_of(options))
    evaluation = evaluate(entries, dataset, expert, judges=judges, keep_images=[0, 1][: len(dataset)])
    print(terminal_table(evaluation), end="")
    print(
        "\n'avif at X' takes for every image at most the bytes of X; where even its smallest is larger, that one is"
        f"\ntaken and counted as over budget. The pictures are in {options.out}:"
    )
    for path in write_results(evaluation, options.out):
        print(f"  {path}")
    return 0
