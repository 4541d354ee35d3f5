"""Colours of classes: the published colours of Cityscapes and CamVid, and generated colours for all others."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Colour = tuple[int, int, int]

CITYSCAPES: dict[str, Colour] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "trafficlight": (250, 170, 30),
    "trafficsign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}

CAMVID: dict[str, Colour] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "signsymbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}


def class_palette(class_names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the colours (m, 3) of m classes: a known palette if it has every name.

    Case and punctuation of names do not matter.

    Generated colours go round the colour circle by the golden angle, in three steps of lightness, so that neighbours
    in the list differ clearly.
    """
    plain = ["".join(c for c in name.lower() if c.isalnum()) for name in class_names]
    for known in (CAMVID, CITYSCAPES):
        if set(plain) <= known.keys():
            return np.array([known[name] for name in plain], dtype=np.uint8)
    golden = 0.6180339887498949
    generated = [
        colorsys.hls_to_rgb(index * golden % 1.0, (0.5, 0.32, 0.7)[index % 3], 0.65) for index in range(len(plain))
    ]
    return np.round(255 * np.array(generated)).astype(np.uint8)
