#!/usr/bin/env python3
"""Make `scene.json` of a variable-rate codec: what the latents of its training images look like.

    scripts/scene-statistics.py src/gosvae/models/gosvae-variable-camvid \\
        --data camvid:PATH@seen idd-lite:PATH@seen folder:KITTI streets:20

A codec of two layers decides with it whether a picture is for perception models or for people. Every data set counts
alike, with up to `--limit` images, evenly spaced. The script prints the scores of the images of `--check` too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from gosvae.codecs.registry import load_trained_codec
from gosvae.codecs.scene import channel_means, fitted, reduced, save_scene
from gosvae.codecs.variable import VariableRateCodec
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced


def means_of(task: VariableRateCodec, spec: str, limit: int) -> torch.Tensor:
    """Return the channel means (N, D) of images of a data set."""
    dataset = load_prepared(spec, default_split="train")
    some = EvenlySpaced(dataset, min(limit, len(dataset)))
    images = (reduced(some[i].image_uint8_HW3) for i in range(len(some)))
    return torch.stack([channel_means(task, task.analyse(image)) for image in images])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec", type=Path, help="folder of the codec, where the file is written")
    parser.add_argument("--data", nargs="+", required=True, help="data sets like those of the training")
    parser.add_argument("--check", nargs="*", default=[], help="data sets whose scores are printed")
    parser.add_argument("--limit", type=int, default=80)
    parser.add_argument("--likely", type=float, default=1.4, help="greatest score of pictures that look alike")
    parser.add_argument("--possible", type=float, default=2.0, help="greatest score of pictures that perhaps do")
    options = parser.parse_args()
    task = load_trained_codec(options.codec)
    assert isinstance(task, VariableRateCodec)
    parts = [means_of(task, spec, options.limit) for spec in options.data]
    weights_N = torch.cat([torch.full((len(part),), 1.0 / len(part)) for part in parts])
    statistics = fitted(torch.cat(parts), weights_N, likely=options.likely, possible=options.possible)
    save_scene(options.codec, statistics)
    for spec in [*options.data, *options.check]:
        scores = np.array([statistics.score(means_D) for means_D in means_of(task, spec, options.limit)])
        shares = [float((scores <= limit).mean()) for limit in (statistics.likely, statistics.possible)]
        print(
            f"{spec}: {len(scores)} images, score {np.median(scores):.2f} (median), {scores.min():.2f} to "
            f"{scores.max():.2f}; {shares[0]:.0%} alike, {shares[1]:.0%} perhaps"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
