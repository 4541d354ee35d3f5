#!/usr/bin/env python3
"""How many features of a variable-rate codec's encoder are alive, and in how many directions they vary.

    scripts/live_features.py gosvae-variable-camvid --data camvid:PATH --limit 9

A feature is dead where its standard deviation over all images and positions is below 0.001 behind the rectifier: no
gradient reaches it any more.
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch.nn import functional as F

from gosvae.codecs.registry import load_trained_codec
from gosvae.codecs.trained import encoder_input
from gosvae.codecs.variable import VariableRateCodec
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced

SHARES = (0.9, 0.98, 0.999)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec")
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=9)
    options = parser.parse_args()
    codec = load_trained_codec(options.codec)
    if not isinstance(codec, VariableRateCodec):
        parser.error(f"{options.codec} is not a variable-rate codec")
    images = EvenlySpaced(load_prepared(options.data, default_split="val"), options.limit)
    with torch.inference_mode():
        pictures = (images[i].image_uint8_HW3 for i in range(len(images)))
        x_B3HW = torch.cat([encoder_input(picture, codec.model.stride, codec.device) for picture in pictures])
        features_BChw = F.relu(codec.model.encoder.body(x_B3HW - 0.5))
        features_CN = features_BChw.transpose(0, 1).flatten(1)
        alive = int((features_CN.std(dim=1) > 1e-3).sum())
        energy_C = torch.linalg.svdvals(features_CN - features_CN.mean(dim=1, keepdim=True)).square()
    shares_C = energy_C.cumsum(0) / energy_C.sum()
    directions = ", ".join(f"{share:.1%} of the variance in {int((shares_C < share).sum()) + 1}" for share in SHARES)
    print(f"{codec.name}: {alive} of {len(features_CN)} features alive; {directions} directions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
