"""A small folder laid out like Cityscapes: street scenes with label ids and instances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 64, 96
ROAD, SKY, PERSON, CAR = 7, 23, 24, 26
COLOURS = {ROAD: (128, 64, 128), SKY: (70, 130, 180), PERSON: (220, 20, 60), CAR: (0, 0, 142), 0: (20, 20, 20)}


def instance_map(shift: int) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """Numbers as in a file `instanceIds`: two cars that touch, a group of persons, the own bonnet, a licence plate."""
    numbers = np.full((HEIGHT, WIDTH), ROAD, np.int32)
    numbers[:24] = SKY
    numbers[30:44, 10 + shift : 30 + shift] = 1000 * CAR
    numbers[30:44, 30 + shift : 48 + shift] = 1000 * CAR + 1
    numbers[28:46, 60:72] = PERSON
    numbers[28:46, 72:80] = 1000 * PERSON
    numbers[58:] = 1  # ego vehicle
    return numbers


def make_cityscapes(root: Path, *, images: int = 3, instances: bool = True) -> Path:
    """Write the splits `train` and `val` and return the root."""
    for split, first in (("train", 0), ("val", images)):
        pictures, labels = root / "leftImg8bit" / split / "aachen", root / "gtFine" / split / "aachen"
        pictures.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(images):
            stem = f"aachen_{first + number:06d}_000019"
            numbers = instance_map(number)
            ids = np.where(numbers >= 1000, numbers // 1000, numbers).astype(np.uint8)
            image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            for label, colour in COLOURS.items():
                image[ids == label] = colour
            image += np.random.default_rng(number).integers(0, 20, image.shape, dtype=np.uint8)
            Image.fromarray(image).save(pictures / f"{stem}_leftImg8bit.png")
            Image.fromarray(ids).save(labels / f"{stem}_gtFine_labelIds.png")
            if instances:
                Image.fromarray(numbers.astype(np.uint16)).save(labels / f"{stem}_gtFine_instanceIds.png")
    return root
