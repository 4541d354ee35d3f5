#!/usr/bin/env python3
"""Interpolate between the weights of a finished codec and those after further training.

    scripts/blend.py gosvae-variable-camvid runs/streets-4 --share 0.75 --out runs/streets

Weights between those before and after a fine-tuning often serve strangers better than either (Wortsman et al. 2022,
"Robust fine-tuning of zero-shot models"). A layer at full resolution that the first codec lacks counts as one that
changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from gosvae.codecs.checkpoint import half_weights, load_codec_checkpoint, save_codec
from gosvae.codecs.registry import checkpoint_folder
from gosvae.training.growth import can_grow


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="name or folder of the codec that the training started from")
    parser.add_argument("after", help="name or folder of the trained one, with the same encoder")
    parser.add_argument("--share", type=float, required=True, help="share of the trained one, 0 to 1")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    options = parser.parse_args()
    before, after = (load_codec_checkpoint(checkpoint_folder(name)) for name in (options.before, options.after))
    if not can_grow(before.card.model, after.card.model):
        raise SystemExit("the codecs are not one before and after a training: their models do not fit")
    share, weights = options.share, {}
    for name, value in after.weights.items():
        start = before.weights.get(name)
        if start is None:
            changes = name.startswith(("decoder.finish.paint", "decoder.finish.square"))
            start = torch.zeros_like(value) if changes else value
        weights[name] = torch.lerp(start.float(), value.float(), share)
    notes = {**after.provenance, "blend": {"of": before.card.name, "share_of_the_trained": share}}
    save_codec(options.out, replace(after, weights=half_weights(weights), provenance=notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
