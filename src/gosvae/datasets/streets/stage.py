"""Stage of a street scene: camera, light, random choices, and the canvas that all parts are drawn on.

World axes in metres: x to the right, y up from the ground, z forward; the camera stands at (0, camera height, 0).
The canvas is supersampled RGBA whose fourth channel holds the class, so one call draws the picture and its label.
Only +, -, *, / and square roots are used: IEEE arithmetic gives the same scene on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, ImageChops, ImageDraw

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

NEAR_M = 0.8
"""Smallest distance in metres that is projected; nearer points are outside the picture."""

SUPERSAMPLING = 2

Rgb = tuple[float, float, float]
Point = tuple[float, float, float]
T = TypeVar("T")


def mix(a: Rgb, b: Rgb, weight: float) -> Rgb:
    """Return a mixture of two colours: `a` if the weight is 0, `b` if it is 1."""
    rest = 1.0 - weight
    return a[0] * rest + b[0] * weight, a[1] * rest + b[1] * weight, a[2] * rest + b[2] * weight


class Dice:
    """Source of the random choices for a scene, all from one generator."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.random = generator.random

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.random())

    def chance(self, probability: float) -> bool:
        return bool(self.random() < probability)

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.random() * len(options))]

    def tint(self, rgb: Rgb, spread: float) -> Rgb:
        """Return the colour, randomly lighter or darker and a little warmer or colder."""
        level, warmth = self.between(-spread, spread), self.between(-spread, spread) * 0.3
        return rgb[0] + level + warmth, rgb[1] + level, rgb[2] + level - warmth


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without roll, in canvas pixels: focal length, height above ground (m), vanishing point."""

    focal: float
    height_m: float
    u0: float
    v0: float

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Return the canvas position (u, v) of a point in the world."""
        scale = self.focal / (z if z > NEAR_M else NEAR_M)
        return self.u0 + scale * x, self.v0 + scale * (self.height_m - y)


@dataclass(frozen=True)
class Light:
    """The light of a scene.

    Attributes:
        sun: unit vector towards the sun.
        direct: share of the light that comes from the sun, 0 (overcast) to 0.6.
        haze_rgb: colour of the haze.
        haze_m: distance in metres at which half of a colour is haze.
        dusk: degree of darkness, 0 in daylight to 1; lamps and windows are lit from 0.5.
    """

    sun: Point
    direct: float
    haze_rgb: Rgb
    haze_m: float
    dusk: float

    def on(self, nx: float, ny: float, nz: float) -> float:
        """Return the brightness of a face with this unit normal, about 0.6 to 1.2."""
        cosine = nx * self.sun[0] + ny * self.sun[1] + nz * self.sun[2]
        return 1.0 - 0.62 * self.direct + self.direct * max(0.0, cosine) + 0.06 * ny

    def paint(self, rgb: Rgb, z: float, level: float = 1.0) -> tuple[int, int, int]:
        """Return the colour, 0-255, as it is seen from a distance of `z` metres."""
        haze = z / (z + self.haze_m)
        rest = (1.0 - haze) * level
        r = rgb[0] * rest + self.haze_rgb[0] * haze
        g = rgb[1] * rest + self.haze_rgb[1] * haze
        b = rgb[2] * rest + self.haze_rgb[2] * haze
        return min(255, max(0, int(r))), min(255, max(0, int(g))), min(255, max(0, int(b)))


def _hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the convex hull of points (monotone chain)."""

    def half(ordered: list[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for p in ordered:
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-2:]
                if (bx - ax) * (p[1] - ay) - (by - ay) * (p[0] - ax) > 0:
                    break
                chain.pop()
            chain.append(p)
        return chain[:-1]

    ordered = sorted(set(points))
    return half(ordered) + half(ordered[::-1]) if len(ordered) > 2 else ordered


class Stage:
    """Camera, light, dice and canvas of one scene.

    `face` takes points in the world. People and signs, which always face the camera, are drawn in canvas pixels with
    `shape`, `disc` and `stroke`, which need their distance for the haze.
    """

    def __init__(self, background: Image.Image, camera: Camera, light: Light, dice: Dice) -> None:
        self.canvas = background
        self.camera, self.light, self.dice = camera, light, dice
        self.width, self.height = background.size
        self.shade = Image.new("RGBA", (self.width // SUPERSAMPLING, self.height // SUPERSAMPLING), (255,) * 4)
        self._draw = ImageDraw.Draw(self.canvas)
        self._draw_shade = ImageDraw.Draw(self.shade)
        dark = 1.0 - 0.85 * light.direct
        self._shadow_ink = (int(255 * dark), int(255 * dark), int(min(255.0, 268 * dark)), 255)

    def face(self, points: Sequence[Point], rgb: Rgb, label: int, level: float = 1.0) -> None:
        """Draw a flat polygon in the world."""
        at = self.camera.at
        self._draw.polygon([at(*p) for p in points], fill=(*self.light.paint(rgb, points[0][2], level), label))

    def shape(self, points: Sequence[tuple[float, float]], rgb: Rgb, z: float, label: int, level: float = 1.0) -> None:
        """Draw a polygon in canvas pixels."""
        self._draw.polygon(points, fill=(*self.light.paint(rgb, z, level), label))

    def scatter(self, polygons: list[list[float]], levels: list[int], rgb: Rgb, z: float, label: int) -> None:
        """Draw many polygons (flat lists u, v, u, v, ...) of one colour at different brightness, in tenths."""
        inks = {level: (*self.light.paint(rgb, z, level / 10.0), label) for level in set(levels)}
        for points, level in zip(polygons, levels, strict=True):
            self._draw.polygon(points, fill=inks[level])

    def disc(self, u: float, v: float, ru: float, rv: float, rgb: Rgb, z: float, label: int) -> None:
        """Draw an ellipse with half axes `ru` and `rv`, in canvas pixels."""
        self._draw.ellipse((u - ru, v - rv, u + ru, v + rv), fill=(*self.light.paint(rgb, z), label))

    def ring(self, u: float, v: float, radius: float, width: float, rgb: Rgb, z: float, label: int) -> None:
        """Draw the outline of a circle in canvas pixels."""
        box = (u - radius, v - radius, u + radius, v + radius)
        self._draw.ellipse(box, outline=(*self.light.paint(rgb, z), label), width=max(1, int(width + 0.5)))

    def stroke(self, points: Sequence[tuple[float, float]], width: float, rgb: Rgb, z: float, label: int) -> None:
        """Draw a line in canvas pixels, at least one pixel wide."""
        ink = (*self.light.paint(rgb, z), label)
        self._draw.line(points, fill=ink, width=max(1, int(width + 0.5)), joint="curve" if width > 4 else None)

    def _on_ground(self, x: float, z: float) -> tuple[float, float]:
        u, v = self.camera.at(x, 0.0, z)
        return u / SUPERSAMPLING, v / SUPERSAMPLING

    def cast(self, corners: Sequence[tuple[float, float]], height: float, base: float = 0.0) -> None:
        """Draw the shadow on the ground of an upright body: its (x, z) corners, from `base` to `height` metres."""
        if self.light.direct < 0.1:
            return
        sx, sy, sz = self.light.sun
        ends = [(x - sx / sy * y, z - sz / sy * y) for x, z in corners for y in (base, height)]
        hull = _hull([(x, max(z, 1.5)) for x, z in ends])
        if len(hull) > 2:
            self._draw_shade.polygon([self._on_ground(x, z) for x, z in hull], fill=self._shadow_ink)

    def dapple(self, x: float, z: float, radius: float, height: float) -> None:
        """Draw the ragged shadow of a tree crown."""
        if self.light.direct < 0.1:
            return
        sx, sy, sz = self.light.sun
        for _ in range(24):
            cx = x - sx / sy * height + self.dice.between(-radius, radius)
            cz = max(2.0, z - sz / sy * height + self.dice.between(-radius, radius) * 1.3)
            r = radius * self.dice.between(0.1, 0.32)
            u, v = self._on_ground(cx, cz)
            ru = self.camera.focal * r / cz / SUPERSAMPLING
            rv = ru * self.camera.height_m / cz
            self._draw_shade.ellipse((u - ru, v - rv, u + ru, v + rv), fill=self._shadow_ink)

    def darken(self, corners: Sequence[tuple[float, float]], level: float) -> None:
        """Darken a patch of ground under an object, also without sun."""
        ink = int(255 * level)
        points = [self._on_ground(x, max(z, 1.5)) for x, z in corners]
        self._draw_shade.polygon(points, fill=(ink, ink, ink, 255))

    def settle_ground(self) -> None:
        """Multiply the ground by its texture and shadows; call this once, before anything upright is drawn."""
        top = max(0, int(self.camera.v0 / SUPERSAMPLING))
        shade = self.shade.crop((0, top, *self.shade.size)).convert("RGB")
        top *= SUPERSAMPLING
        shade = shade.resize((self.width, self.height - top), Image.Resampling.BILINEAR)
        shade.putalpha(255)  # leaves the classes as they are
        ground = self.canvas.crop((0, top, self.width, self.height))
        self.canvas.paste(ImageChops.multiply(ground, shade), (0, top))

    def pixels_per_metre(self, z: float) -> float:
        return self.camera.focal / max(z, NEAR_M)


def unit(x: float, y: float, z: float) -> Point:
    """Return the vector scaled to length 1."""
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length
