#!/usr/bin/env python3
"""Draw a part of an image and of its reconstructions by several codecs, enlarged, side by side.

    scripts/enlarge.py docs/assets/street.jpg gosvae-variable-camvid gosvae-streets --out docs/assets/lattice.png

Budgets are for the whole image. The original stands at the left.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from gosvae.codecs.base import RateControlledCodec
from gosvae.codecs.registry import load_codec
from gosvae.errors import ConfigError
from gosvae.images import read_image, write_image


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("codecs", nargs="+", help="names or folders of codecs of any rate")
    parser.add_argument("--kib", type=float, default=1.0, help="budget of each")
    parser.add_argument(
        "--part", type=int, nargs=4, default=(64, 176, 96, 96), metavar=("TOP", "LEFT", "HEIGHT", "WIDTH")
    )
    parser.add_argument("--times", type=int, default=3, help="enlargement")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    options = parser.parse_args()
    image = read_image(options.image)
    pictures = [image]
    for name in options.codecs:
        codec = load_codec(name)
        if not isinstance(codec, RateControlledCodec):
            raise ConfigError(f"{codec.name} has no rate to set")
        pictures.append(codec.decompress(codec.compress_to_budget(image, int(1024 * options.kib))))
    top, left, height, width = options.part
    parts = [Image.fromarray(picture[top : top + height, left : left + width]) for picture in pictures]
    size = (options.times * width, options.times * height)
    row = np.concatenate([np.asarray(part.resize(size, Image.Resampling.NEAREST)) for part in parts], axis=1)
    write_image(options.out, row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
