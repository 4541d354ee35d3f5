#!/usr/bin/env python3
"""Measure how well a codec meets budgets: the bytes of each image's stream as a share of `--kib`.

    scripts/budgets.py gosvae-variable-camvid --data camvid:PATH --kib 0.3 0.5 1 2 4 8

Images for which even the smallest stream is too large are left out of the shares; the second column counts the others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gosvae.codecs.base import RateControlledCodec
from gosvae.codecs.registry import load_codec
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.errors import RateError
from gosvae.files import write_atomically


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec")
    parser.add_argument("--data", required=True)
    parser.add_argument("--kib", type=float, nargs="+", default=[0.3, 0.5, 1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--limit", type=int, help="number of images, evenly spaced; default: all")
    parser.add_argument("--to", type=Path, help="file for the table")
    options = parser.parse_args()
    codec = load_codec(options.codec)
    if not isinstance(codec, RateControlledCodec):
        parser.error(f"{options.codec} has no rate to set")
    dataset = load_prepared(options.data, default_split="val")
    dataset = EvenlySpaced(dataset, options.limit) if options.limit else dataset
    images = [dataset[i].image_uint8_HW3 for i in range(len(dataset))]
    lines = ["| budget, KiB | images that fit | taken, mean | least | most |", "|--:|--:|--:|--:|--:|"]
    for kib in options.kib:
        shares = []
        for image in images:
            try:
                shares.append(len(codec.compress_to_budget(image, int(1024 * kib))) / int(1024 * kib))
            except RateError:
                continue
        taken = [sum(shares) / len(shares), min(shares), max(shares)] if shares else []
        lines.append(f"| {kib:g} | {len(shares)} of {len(images)} | {' | '.join(f'{100 * s:.1f} %' for s in taken)} |")
        print(lines[-1], flush=True)
    if options.to:
        write_atomically(options.to, ("\n".join(lines) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
