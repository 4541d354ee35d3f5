"""Buildings and fences along a street."""

from __future__ import annotations

from dataclasses import dataclass

from gosvae.datasets.streets.stage import BUILDING, FENCE, Point, Rgb, Stage, mix

FACADES: tuple[Rgb, ...] = (
    (178, 166, 146), (156, 92, 72), (196, 188, 176), (138, 112, 92), (120, 74, 60), (214, 200, 168),
    (150, 152, 154), (186, 142, 104), (110, 112, 116), (204, 178, 142), (170, 120, 98), (226, 220, 208),
)  # fmt: skip
ROOFS: tuple[Rgb, ...] = ((96, 70, 60), (70, 72, 78), (120, 76, 58), (86, 84, 82))
FASCIAS: tuple[Rgb, ...] = ((150, 30, 34), (24, 60, 120), (20, 92, 60), (60, 60, 64), (196, 150, 40), (90, 40, 96))
LIT: Rgb = (250, 214, 140)


@dataclass(frozen=True)
class Wall:
    """A vertical plane between two ground points (x, z), nearest first; `side` is +1 right of the road, -1 left."""

    near: tuple[float, float]
    far: tuple[float, float]
    side: int

    @property
    def length(self) -> float:
        dx, dz = self.far[0] - self.near[0], self.far[1] - self.near[1]
        return float((dx * dx + dz * dz) ** 0.5)

    def at(self, t: float, y: float) -> Point:
        """Return the point at a share `t` of the wall's length, at height `y`."""
        return self.near[0] + (self.far[0] - self.near[0]) * t, y, self.near[1] + (self.far[1] - self.near[1]) * t

    def quad(self, t0: float, t1: float, y0: float, y1: float) -> list[Point]:
        return [self.at(t0, y0), self.at(t1, y0), self.at(t1, y1), self.at(t0, y1)]


def _glass(stage: Stage) -> Rgb:
    dice = stage.dice
    if stage.light.dusk > 0.5 and dice.chance(0.35):
        return dice.tint(LIT, 25)
    return mix((42, 50, 60), stage.light.haze_rgb, dice.between(0.0, 0.45))


def _windows(stage: Stage, wall: Wall, y0: float, y1: float, rgb: Rgb, level: float) -> None:
    """Draw a grid of windows with frames and sills from height y0 to height y1."""
    dice = stage.dice
    pitch, storey = dice.between(1.9, 3.4), dice.between(2.8, 3.5)
    wide, tall, rise = dice.between(0.4, 0.72), dice.between(0.45, 0.68), dice.between(0.2, 0.3)
    columns, floors = max(1, int(wall.length / pitch)), max(1, int((y1 - y0) / storey))
    storey = (y1 - y0) / floors
    frame = dice.pick(((232, 230, 224), (64, 60, 58), mix(rgb, (255, 255, 255), 0.4)))
    band = dice.chance(0.4)
    for floor in range(1, floors) if band else ():
        y = y0 + floor * storey
        stage.face(wall.quad(0, 1, y - 0.12, y + 0.12), mix(rgb, (255, 255, 255), 0.3), BUILDING, level)
    for column in range(columns):
        t0, t1 = (column + 0.5 - wide / 2) / columns, (column + 0.5 + wide / 2) / columns
        left, right = sorted((stage.camera.at(*wall.at(t0, y0))[0], stage.camera.at(*wall.at(t1, y0))[0]))
        if right < 0 or left > stage.width or right - left < 1.2:
            continue
        large = right - left > 7
        edge = 0.06 / columns
        for floor in range(floors):
            low = y0 + (floor + rise) * storey
            high = low + tall * storey
            if large:
                stage.face(wall.quad(t0 - edge, t1 + edge, low - 0.1, high + 0.1), frame, BUILDING, level)
            stage.face(wall.quad(t0, t1, low, high), _glass(stage), BUILDING)
            if large:
                middle = (t0 + t1) / 2
                stage.face(wall.quad(middle - edge / 2, middle + edge / 2, low, high), frame, BUILDING, level)
                stage.face(wall.quad(t0, t1, high - 0.12 * tall * storey, high), (34, 38, 44), BUILDING)


def _ground_floor(stage: Stage, wall: Wall, top: float, rgb: Rgb, level: float) -> None:
    """Draw shops with a coloured fascia, or doors and windows."""
    dice = stage.dice
    shops = max(1, int(wall.length / dice.between(5, 9)))
    for shop in range(shops):
        t0, t1 = (shop + 0.04) / shops, (shop + 0.96) / shops
        if dice.chance(0.55):
            fascia = dice.tint(dice.pick(FASCIAS), 15)
            stage.face(wall.quad(t0, t1, 0.45, top - 0.7), _glass(stage), BUILDING)
            stage.face(wall.quad(t0, t1, top - 0.75, top - 0.1), fascia, BUILDING, level)
            for cut in (0.3, 0.62):
                t = t0 + (t1 - t0) * cut
                stage.face(wall.quad(t, t + 0.015 / shops, 0.0, top - 0.75), fascia, BUILDING, level * 0.8)
        else:
            door = t0 + (t1 - t0) * dice.between(0.1, 0.7)
            stage.face(wall.quad(door, door + 1.0 / wall.length, 0, 2.2), dice.pick(FASCIAS), BUILDING, level * 0.8)
            for cut in (0.08, 0.55):
                t = t0 + (t1 - t0) * cut
                if abs(t - door) > 1.2 / wall.length:
                    stage.face(wall.quad(t, t + 1.4 / wall.length, 0.9, 2.3), _glass(stage), BUILDING)
    stage.face(wall.quad(0, 1, 0, 0.35), mix(rgb, (40, 40, 40), 0.4), BUILDING, level)


def draw_building(stage: Stage, wall: Wall, height: float, depth: float, *, pitched: bool) -> None:
    """Draw a house behind `wall`: facade with windows, the end wall that faces the camera, and a roof."""
    dice, side = stage.dice, wall.side
    ends = [stage.camera.at(x, 0, z)[0] for x, z in (wall.near, wall.far, (wall.near[0] + side * depth, wall.near[1]))]
    if max(ends) < 0 or min(ends) > stage.width:
        return
    rgb = dice.tint(dice.pick(FACADES), 16)
    front, end = stage.light.on(-side, 0, 0), stage.light.on(0, 0, -1)
    x, z = wall.near
    end_wall = Wall((x, z), (x + side * depth, z), side)
    roof = dice.tint(dice.pick(ROOFS), 12)
    eaves = height + (dice.between(1.8, 3.2) if pitched else 0.0)
    plain = mix(rgb, (128, 120, 112), 0.2)
    stage.face(end_wall.quad(0, 1, 0, height), plain, BUILDING, end)
    if pitched:
        stage.face([end_wall.at(0, height), end_wall.at(1, height), end_wall.at(0.5, eaves)], plain, BUILDING, end)
        ridge_near, ridge_far = (x + side * depth / 2, eaves, z), (wall.far[0] + side * depth / 2, eaves, wall.far[1])
        slope = stage.light.on(-side * 0.6, 0.8, 0)
        stage.face([wall.at(0, height), wall.at(1, height), ridge_far, ridge_near], roof, BUILDING, slope)
    if dice.chance(0.6) and height > 5:
        _windows(stage, end_wall, 3.2, height - 0.4, rgb, end)
    stage.face(wall.quad(0, 1, 0, height), rgb, BUILDING, front)
    base = dice.between(3.0, 3.8)
    if height > base + 2.5:
        _windows(stage, wall, base, height - 0.3, rgb, front)
    _ground_floor(stage, wall, min(base, height), rgb, front)
    stage.face(wall.quad(0, 1, height - 0.3, height), mix(rgb, (250, 250, 245), 0.35), BUILDING, front)
    for _ in range(int(dice.between(0, 3)) if pitched else 0):
        t = dice.between(0.1, 0.9)
        cx, _, cz = wall.at(t, 0)
        cx += side * depth * 0.4
        pot = [(cx - 0.4, height, cz), (cx + 0.4, height, cz), (cx + 0.4, eaves + 1, cz), (cx - 0.4, eaves + 1, cz)]
        stage.face(pot, mix(rgb, (90, 60, 50), 0.5), BUILDING, end)


def draw_fence(stage: Stage, wall: Wall, height: float, style: int, rgb: Rgb) -> None:
    """Draw a stretch of fence: 0 palisade, 1 close boards, 2 low wall with railing, 3 guard rail."""
    light = stage.light.on(-wall.side, 0, 0)
    dark = mix(rgb, (50, 58, 46), 0.75)
    if style == 3:
        stage.face(wall.quad(0, 1, 0.1, height), dark, FENCE, light)
        stage.face(wall.quad(0, 1, height * 0.55, height), rgb, FENCE, light)
        stage.face(wall.quad(0, 1, height * 0.74, height * 0.8), rgb, FENCE, light * 0.75)
        return
    stage.face(wall.quad(0, 1, 0, height), rgb if style == 1 else dark, FENCE, light)
    pitch = {0: 0.22, 1: 0.3, 2: 0.16}[style]
    bars = max(1, int(wall.length / pitch))
    if stage.pixels_per_metre(wall.near[1]) * pitch < 1.5:
        bars = min(bars, 4)
    for bar in range(bars):
        t = bar / bars
        if style == 1:
            stage.face(wall.quad(t, t + 0.12 / bars, 0, height), dark, FENCE, light)
        else:
            stage.face(wall.quad(t, t + 0.45 / bars, 0, height + 0.06), rgb, FENCE, light)
    if style == 2:
        stage.face(wall.quad(0, 1, 0, height * 0.5), mix(rgb, (150, 110, 90), 0.8), FENCE, light)
    for y in (height * 0.2, height * 0.85) if style != 1 else ():
        stage.face(wall.quad(0, 1, y, y + 0.07), rgb, FENCE, light)
