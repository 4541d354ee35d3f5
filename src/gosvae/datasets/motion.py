"""Short sequences from still pictures: a camera that stands, pans or drives, noise, and things that move.

Axis legend: H and W pixels, 3 RGB channels.
"""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from gosvae.tensors import ImageArray

_STANDING = 0.35
"""Share of sequences whose camera stands."""
_SPEEDS = (0.05, 14.0)
"""Least and greatest speed of a camera and of things, in pixels of the frames from one frame to the next."""
_GROWTH = (0.001, 0.08)
"""Least and greatest growth of a picture that the camera drives into, from one frame to the next."""


class _Dice:
    """Source of random numbers of one sequence."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def chance(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)

    def between(self, low: float, high: float) -> float:
        return float(self.generator.uniform(low, high))

    def magnitude(self, low: float, high: float) -> float:
        """Return a number whose logarithm is uniform."""
        return math.exp(self.between(math.log(low), math.log(high)))


def moving_frames(
    picture: ImageArray, other: ImageArray, count: int, size_hw: tuple[int, int], generator: np.random.Generator
) -> list[ImageArray]:
    """Return frames, uint8 (H, W, 3), of a camera that looks at a window of a picture.

    The camera stands in a third of the sequences; otherwise it pans, or drives towards a point. Each frame has noise of
    its own, and in some sequences the losses of a JPEG and changes of brightness.

    Args:
        picture: still picture.
        other: picture that moving things are cut from.
        count: number of frames.
        size_hw: height and width of the frames.
        generator: source of all random numbers.
    """
    dice, (height, width) = _Dice(generator), size_hw
    boxes = _boxes(dice, picture.shape[0], picture.shape[1], count)
    mirrored = dice.chance(0.5)
    things = (
        [_Thing(dice, other, height, width) for _ in range(int(generator.integers(0, 4)))] if dice.chance(0.6) else []
    )
    sigma = dice.between(0.0, 1.0) ** 2 * 6.0
    flicker = dice.between(0.0, 0.02) if dice.chance(0.3) else 0.0
    quality = int(dice.between(60, 96)) if dice.chance(0.3) else None
    source, frames = Image.fromarray(picture), []
    for number, box in enumerate(boxes):
        frame = source.resize((width, height), Image.Resampling.BICUBIC, box=box)
        for thing in things:
            thing.draw(frame, number)
        if mirrored:
            frame = frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.asarray(frame, np.float32) * (1.0 + dice.between(-flicker, flicker))
        pixels += sigma * generator.standard_normal(pixels.shape, np.float32)
        frames.append(_stored(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), quality))
    return frames


def _stored(pixels: npt.NDArray[np.uint8], quality: int | None) -> ImageArray:
    if quality is None:
        return pixels
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def _boxes(dice: _Dice, height: int, width: int, count: int) -> list[tuple[float, float, float, float]]:
    """Return the window (left, top, right, bottom) of each frame, within the picture."""
    share = dice.between(0.7, 1.0)
    box_w, box_h = share * width, share * height
    left, top = dice.between(0, width - box_w), dice.between(0, height - box_h)
    if dice.chance(_STANDING):
        return [(left, top, left + box_w, top + box_h)] * count
    unit = box_w / 512.0
    angle = dice.between(0, 2 * math.pi) if dice.chance(0.5) else dice.between(-0.3, 0.3) + math.pi * dice.chance(0.5)
    speed = unit * dice.magnitude(*_SPEEDS) * dice.chance(0.7)
    growth = dice.magnitude(*_GROWTH) * dice.chance(0.6)
    shake = unit * dice.between(0.0, 1.0) * dice.chance(0.4)
    focus_x, focus_y = dice.between(0.3, 0.7), dice.between(0.3, 0.6)
    boxes = []
    for number in range(count):
        factor = (1.0 + growth) ** -number
        w, h = box_w * factor, box_h * factor
        x = left + focus_x * (box_w - w) + number * speed * math.cos(angle) + shake * dice.between(-1, 1)
        y = top + focus_y * (box_h - h) + number * speed * math.sin(angle) * 0.5 + shake * dice.between(-1, 1)
        x, y = min(max(x, 0.0), width - w), min(max(y, 0.0), height - h)
        boxes.append((x, y, x + w, y + h))
    return boxes if dice.chance(0.5) else boxes[::-1]


class _Thing:
    """A piece of a picture that moves over the frames."""

    def __init__(self, dice: _Dice, picture: ImageArray, height: int, width: int) -> None:
        w, h = int(dice.magnitude(12, width / 3)), int(dice.magnitude(12, height / 2))
        left, top = dice.between(0, 0.6) * picture.shape[1], dice.between(0, 0.6) * picture.shape[0]
        box = (left, top, left + 0.4 * picture.shape[1], top + 0.4 * picture.shape[0])
        self._piece = Image.fromarray(picture).resize((w, h), Image.Resampling.BICUBIC, box=box)
        self._mask = Image.new("L", (w, h), 0)
        draw = ImageDraw.Draw(self._mask)
        shape = draw.ellipse if dice.chance(0.5) else draw.rectangle
        shape((0, 0, w - 1, h - 1), fill=255)
        self._x, self._y = dice.between(-w / 2, width - w / 2), dice.between(height / 4, height - h / 2)
        speed = dice.magnitude(*_SPEEDS) * (1 if dice.chance(0.5) else -1)
        self._dx, self._dy = speed, 0.2 * speed * dice.between(-1, 1)

    def draw(self, frame: Image.Image, number: int) -> None:
        """Draw the thing where it is in a frame."""
        place = (round(self._x + number * self._dx), round(self._y + number * self._dy))
        frame.paste(self._piece, place, self._mask)
