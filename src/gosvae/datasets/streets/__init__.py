"""Data set `streets`: labelled driving scenes from a procedural generator, which needs no files."""

from __future__ import annotations

import numpy as np

from gosvae.datasets.base import Dataset, Sample
from gosvae.datasets.streets.photo import expose, make_background, make_light, texture_ground
from gosvae.datasets.streets.scene import Scene, make_plan
from gosvae.datasets.streets.stage import SUPERSAMPLING, Camera, Dice, Stage
from gosvae.errors import DatasetError
from gosvae.seeding import numpy_generator

CLASS_NAMES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
SMALLEST = 16
"""Smallest height and width of a picture, in pixels."""


class Streets(Dataset):
    """Dataset of rendered street scenes with CamVid's 11 classes (labels 0 to 10, in the order of `class_names`).

    A scene is a street in perspective with houses, trees, poles, signs, fences, vehicles and people, under varied
    light, haze, blur and noise. Picture and labels come from the same geometry, far to near. Lane markings are road,
    grass and hedges are tree, signal heads are sign, vans and buses are car, as in CamVid. No pixel is void (255).

    `Streets(count, seed, height, width)[i]` depends on (seed, i, height, width) only, on every machine with the
    same versions of NumPy and Pillow.

    Args:
        count: number of scenes.
        seed: seed of all scenes; another seed gives other scenes.
        height, width: size of the pictures in pixels, at least 16.

    Raises:
        DatasetError: a negative count or a picture under 16 pixels.
    """

    name = "streets"
    class_names = CLASS_NAMES

    def __init__(self, count: int, seed: int, height: int = 256, width: int = 512) -> None:
        if count < 0 or min(height, width) < SMALLEST:
            raise DatasetError(
                f"streets: expected count >= 0 and height and width >= {SMALLEST} pixels, "
                f"got count={count}, height={height}, width={width}"
            )
        self.count, self.seed, self.height, self.width = count, seed, height, width

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """Return scene `index`: uint8 (height, width, 3) with labels uint8 (height, width).

        Raises:
            IndexError: `index` is not in 0..count-1.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"streets has scenes 0 to {self.count - 1}, got {index}")
        height, width = self.height, self.width
        dice = Dice(numpy_generator("streets", self.seed, index, height, width))
        camera = _make_camera(dice, height, width)
        light, zenith, horizon = make_light(dice)
        stage = Stage(make_background(dice, camera, height, width, zenith, horizon), camera, light, dice)
        texture_ground(dice, camera, stage.shade)
        Scene(stage, make_plan(dice)).draw()
        labels_HW = np.asarray(stage.canvas.getchannel(3))[::SUPERSAMPLING, ::SUPERSAMPLING]
        rgb_HW3 = np.asarray(stage.canvas.convert("RGB").reduce(SUPERSAMPLING))
        if dice.chance(0.5):  # half of the scenes drive on the left
            labels_HW, rgb_HW3 = labels_HW[:, ::-1], rgb_HW3[:, ::-1]
        image = expose(dice, rgb_HW3.astype(np.float32), labels_HW, light)
        return Sample(image, np.ascontiguousarray(labels_HW), f"streets-{self.seed}-{index:06d}")


def _make_camera(dice: Dice, height: int, width: int) -> Camera:
    """Return a dash camera with a random lens, mounting height and vanishing point."""
    return Camera(
        focal=dice.between(0.62, 0.95) * (height + width) / 1.5 * SUPERSAMPLING,
        height_m=dice.between(1.25, 1.9),
        u0=dice.between(0.4, 0.6) * width * SUPERSAMPLING,
        v0=dice.between(0.36, 0.5) * height * SUPERSAMPLING,
    )
