#!/usr/bin/env python3
"""Compare PSNR and SSIM of photos with those of AVIF at equal bytes, and print the choices of `gosvae compress`.

    scripts/photos.py                             # sample photos of scikit-learn and scikit-image, if these are there
    scripts/photos.py my-photos --out runs/photos

For every photo and every quality of AVIF (speed 6, full size, the file as it is), a codec of two layers for people gets
the bytes of the file as its budget. `task layer` is what the default model alone makes of as many bytes. The last table
shows the default, without any option. Photos of more than 2^20 pixels are reduced.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure

from gosvae.codecs.base import ImageCodec
from gosvae.codecs.classical import load_classical
from gosvae.codecs.layered import layers_of
from gosvae.codecs.registry import DEFAULT_CODEC, LAYERED, load_codec, load_layered_codec
from gosvae.codecs.slices import StreamOptions
from gosvae.errors import DatasetError
from gosvae.files import write_atomically
from gosvae.images import read_image
from gosvae.metrics import mean_squared_error
from gosvae.tensors import ImageArray, image_to_tensor
from gosvae.units import kib, psnr_db
from gosvae.walk import find_images

QUALITIES = (10, 30, 50, 70, 90)
SAMPLES = {
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "skimage": tuple(
        f"data/{name}"
        for name in (
            "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg", "ihc.png",
            "hubble_deep_field.jpg", "motorcycle_left.png",
        )
    ),
}  # fmt: skip
"""Colour photos in the packages scikit-learn and scikit-image, which are not imported."""
MOST_PIXELS = 2**20


@dataclass(frozen=True)
class Seen:
    """One stream of one photo."""

    n_bytes: int
    psnr_db: float
    ssim: float


def photos(folder: Path | None) -> Iterator[tuple[str, ImageArray]]:
    """Yield names and pictures."""
    files = list(find_images(folder).files) if folder else []
    for package, names in SAMPLES.items() if folder is None else ():
        spec = find_spec(package)
        for place in spec.submodule_search_locations or () if spec else ():
            files += [Path(place, name) for name in names if Path(place, name).is_file()]
    if not files:
        raise DatasetError("no photos: install scikit-learn and scikit-image, or name a folder of photos")
    for file in files:
        image = Image.fromarray(read_image(file))
        factor = (MOST_PIXELS / (image.width * image.height)) ** 0.5
        if factor < 1:
            image = image.resize((int(image.width * factor), int(image.height * factor)), Image.Resampling.BICUBIC)
        yield file.stem, np.asarray(image)


def seen(image: ImageArray, codec: ImageCodec, data: bytes) -> Seen:
    """Return size and quality of a stream."""
    picture = codec.decompress(data)
    ssim = structural_similarity_index_measure(image_to_tensor(picture), image_to_tensor(image), data_range=1.0)
    return Seen(len(data), psnr_db(max(mean_squared_error(image, picture), 1e-10)), float(ssim))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="folder of photos; default: the sample photos")
    parser.add_argument("--quality", type=int, nargs="+", default=list(QUALITIES), help="qualities of AVIF")
    parser.add_argument("--out", type=Path, help="folder for report.md")
    options = parser.parse_args()
    people = load_layered_codec(options=StreamOptions(purpose="people"))
    task, default = load_codec(DEFAULT_CODEC), load_layered_codec()
    lines = ["| photo | AVIF | KiB | PSNR, dB: AVIF | ours | SSIM: AVIF | ours |", "|---|--:|--:|--:|--:|--:|--:|"]
    last = ["| photo | pixels | what it became | KiB | PSNR, dB | SSIM | task layer alone, dB | SSIM |"]
    last += ["|---|---|---|--:|--:|--:|--:|--:|"]
    gains: list[tuple[float, float]] = []
    for name, image in photos(options.folder):
        for quality in options.quality:
            avif = load_classical("avif", quality)
            data = avif.compress(image)
            rival, ours = seen(image, avif, data), seen(image, people, people.compress_to_budget(image, len(data)))
            gains.append((ours.psnr_db - rival.psnr_db, ours.ssim - rival.ssim))
            lines.append(
                f"| {name} | {quality} | {kib(rival.n_bytes):.2f} | {rival.psnr_db:.2f} | {ours.psnr_db:.2f} | "
                f"{rival.ssim:.4f} | {ours.ssim:.4f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
        stream = default.compress(image)
        own, base = seen(image, default, stream), seen(image, task, task.compress(image))
        last.append(
            f"| {name} | {image.shape[1]}x{image.shape[0]} | {layers_of(stream)} | {kib(own.n_bytes):.2f} | "
            f"{own.psnr_db:.1f} | {own.ssim:.3f} | {base.psnr_db:.1f} | {base.ssim:.3f} |"
        )
        print(last[-1], file=sys.stderr, flush=True)
    least = [min(column) for column in zip(*gains, strict=True)]
    mean = [fmean(column) for column in zip(*gains, strict=True)]
    lines += ["", f"Ours less AVIF: PSNR {mean[0]:+.2f} dB (mean), {least[0]:+.2f} (least); "
              f"SSIM {mean[1]:+.4f} (mean), {least[1]:+.4f} (least)", ""]  # fmt: skip
    text = "\n".join([*lines, f"`{LAYERED}` by default:", "", *last]) + "\n"
    print(text)
    if options.out:
        write_atomically(options.out / "report.md", text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
