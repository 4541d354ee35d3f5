"""Pedestrians and bicyclists: figures that face the camera, drawn in canvas pixels around their foot point."""

from __future__ import annotations

from gosvae.datasets.streets.stage import BICYCLIST, PEDESTRIAN, Rgb, Stage, mix

CLOTHES: tuple[Rgb, ...] = (
    (40, 44, 60), (150, 34, 38), (48, 80, 130), (206, 204, 198), (60, 62, 60), (190, 140, 50), (66, 96, 66),
    (120, 70, 110), (26, 26, 30), (170, 110, 80), (90, 150, 170),
)  # fmt: skip
TROUSERS: tuple[Rgb, ...] = ((36, 42, 66), (28, 28, 32), (88, 80, 68), (62, 64, 72), (130, 122, 104))
SKINS: tuple[Rgb, ...] = ((222, 182, 154), (190, 142, 108), (130, 88, 62), (88, 58, 42), (236, 200, 176))
HAIRS: tuple[Rgb, ...] = ((40, 30, 24), (92, 62, 40), (26, 24, 24), (168, 136, 92), (150, 148, 144))


def draw_pedestrian(stage: Stage, x: float, z: float, height: float) -> None:
    """Draw a walking or standing person of `height` metres."""
    dice, foot = stage.dice, stage.camera.at(x, 0, z)
    m = stage.pixels_per_metre(z) * height / 1.75
    coat, legs = dice.tint(dice.pick(CLOTHES), 14), dice.tint(dice.pick(TROUSERS), 10)
    skin, hair = dice.pick(SKINS), dice.pick(HAIRS)
    facing = dice.pick((-1, 1))
    stride, swing, broad = dice.between(0.02, 0.26), dice.between(-0.22, 0.22), dice.between(0.19, 0.25)

    def at(dx: float, y: float) -> tuple[float, float]:
        return foot[0] + dx * facing * m, foot[1] - y * m

    shade = mix(legs, (0, 0, 0), 0.25)
    stage.stroke([at(0.03, 0.86), at(-stride * 0.4, 0.45), at(-stride, 0.04)], 0.15 * m, shade, z, PEDESTRIAN)
    stage.stroke([at(-0.03, 0.86), at(stride * 0.6, 0.46), at(stride, 0.04)], 0.16 * m, legs, z, PEDESTRIAN)
    for dx in (-stride, stride):
        stage.stroke([at(dx - 0.05, 0.03), at(dx + 0.12, 0.03)], 0.08 * m, (24, 22, 22), z, PEDESTRIAN)
    hem = dice.pick((0.84, 0.84, 0.55))
    body = [at(-broad * 0.8, hem), at(-broad, 1.38), at(-broad * 0.5, 1.48), at(broad * 0.5, 1.48)]
    stage.shape([*body, at(broad, 1.38), at(broad * 0.8, hem)], coat, z, PEDESTRIAN)
    lit = -facing if stage.light.sun[0] < 0 else facing
    stage.shape(
        [at(0, hem), at(0, 1.46), at(lit * broad, 1.38), at(lit * broad * 0.8, hem)],
        mix(coat, (255, 255, 255), 0.3 * stage.light.direct), z, PEDESTRIAN,
    )  # fmt: skip
    sleeve = mix(coat, (0, 0, 0), 0.2)
    for sign, reach in ((-1, -swing), (1, swing)):
        hand, elbow = at(sign * broad + reach, 0.86), at(sign * (broad + 0.04) + reach * 0.3, 1.1)
        stage.stroke([at(sign * broad, 1.36), elbow, hand], 0.1 * m, sleeve, z, PEDESTRIAN)
        stage.disc(*hand, 0.045 * m, 0.05 * m, skin, z, PEDESTRIAN)
    if dice.chance(0.3):
        bag = [at(-broad, 0.7), at(-broad, 1.0), at(-broad - 0.2, 1.0), at(-broad - 0.2, 0.7)]
        stage.shape(bag, dice.pick(CLOTHES), z, PEDESTRIAN)
    stage.stroke([at(0, 1.44), at(0, 1.56)], 0.11 * m, skin, z, PEDESTRIAN)
    _head(stage, at(0, 1.62), m, z, PEDESTRIAN, skin, hair)


def _head(stage: Stage, at: tuple[float, float], m: float, z: float, label: int, skin: Rgb, hair: Rgb) -> None:
    u, v = at
    stage.disc(u, v - 0.02 * m, 0.11 * m, 0.14 * m, hair, z, label)
    if stage.dice.chance(0.6):
        stage.disc(u + 0.01 * m, v + 0.025 * m, 0.085 * m, 0.1 * m, skin, z, label)


def draw_bicyclist(stage: Stage, x: float, z: float, *, across: bool) -> None:
    """Draw a bicyclist from behind or the front, or from the side if they ride across the view."""
    (_side_view if across else _end_view)(stage, x, z)


def _colours(stage: Stage) -> tuple[Rgb, Rgb, Rgb, Rgb]:
    dice = stage.dice
    coat = dice.pick(((196, 220, 40), (220, 90, 40))) if dice.chance(0.3) else dice.pick(CLOTHES)
    return dice.tint(coat, 12), dice.pick(TROUSERS), dice.pick(SKINS), dice.pick(CLOTHES)


def _side_view(stage: Stage, x: float, z: float) -> None:
    dice, (u0, v0), m = stage.dice, stage.camera.at(x, 0, z), stage.pixels_per_metre(z)
    coat, legs, skin, frame = _colours(stage)
    facing = dice.pick((-1, 1))

    def at(dx: float, y: float) -> tuple[float, float]:
        return u0 + dx * facing * m, v0 - y * m

    def line(points: list[tuple[float, float]], width: float, rgb: Rgb) -> None:
        stage.stroke([at(*p) for p in points], width * m, rgb, z, BICYCLIST)

    for dx in (-0.52, 0.52):
        stage.disc(*at(dx, 0.34), 0.31 * m, 0.31 * m, (92, 94, 98), z, BICYCLIST)
        stage.ring(*at(dx, 0.34), 0.34 * m, 0.06 * m, (24, 24, 26), z, BICYCLIST)
        for end in ((0.3, 0.34), (0, 0.64), (0.2, 0.55), (-0.2, 0.55)):
            line([(dx - end[0], 0.68 - end[1]), (dx + end[0], end[1])], 0.01, (150, 152, 156))
    line([(-0.05, 0.86), (0.1, 0.5), (0.1, 0.1)], 0.12, mix(legs, (0, 0, 0), 0.3))
    line([(-0.52, 0.34), (-0.2, 0.82), (0.4, 0.8), (0.0, 0.3), (-0.52, 0.34)], 0.045, frame)
    line([(-0.22, 0.9), (0.0, 0.3)], 0.045, frame)
    line([(0.52, 0.34), (0.38, 0.98), (0.5, 1.02)], 0.045, frame)
    line([(-0.34, 0.92), (-0.12, 0.92)], 0.06, (24, 24, 26))
    knee = dice.between(0.12, 0.3)
    line([(-0.22, 0.96), (knee, 0.72), (0.02, 0.24)], 0.15, legs)
    line([(0.0, 0.2), (0.16, 0.2)], 0.08, (30, 28, 28))
    stage.shape([at(-0.34, 0.94), at(-0.02, 1.44), at(0.2, 1.38), at(-0.06, 0.9)], coat, z, BICYCLIST)
    line([(0.1, 1.38), (0.24, 1.1), (0.46, 1.04)], 0.1, mix(coat, (0, 0, 0), 0.2))
    helmet = dice.pick(CLOTHES)
    _head(stage, at(0.17, 1.58), m, z, BICYCLIST, skin, helmet)


def _end_view(stage: Stage, x: float, z: float) -> None:
    (u0, v0), m = stage.camera.at(x, 0, z), stage.pixels_per_metre(z)
    coat, legs, skin, frame = _colours(stage)

    def at(dx: float, y: float) -> tuple[float, float]:
        return u0 + dx * m, v0 - y * m

    def line(points: list[tuple[float, float]], width: float, rgb: Rgb) -> None:
        stage.stroke([at(*p) for p in points], width * m, rgb, z, BICYCLIST)

    stage.disc(*at(0, 0.34), 0.05 * m, 0.34 * m, (26, 26, 28), z, BICYCLIST)
    line([(0, 0.4), (0, 0.9)], 0.05, frame)
    line([(-0.28, 1.04), (0.28, 1.04)], 0.05, (30, 30, 32))
    lift = stage.dice.between(-0.12, 0.12)
    for sign in (-1, 1):
        line([(sign * 0.1, 0.92), (sign * 0.16, 0.6 + sign * lift), (sign * 0.12, 0.24 + sign * lift)], 0.15, legs)
        line([(sign * 0.12, 0.18 + sign * lift), (sign * 0.12, 0.26 + sign * lift)], 0.1, (28, 26, 26))
        line([(sign * 0.2, 1.42), (sign * 0.3, 1.2), (sign * 0.24, 1.04)], 0.1, mix(coat, (0, 0, 0), 0.2))
    hips = [at(-0.17, 0.88), at(-0.22, 1.38), at(-0.1, 1.48), at(0.1, 1.48), at(0.22, 1.38), at(0.17, 0.88)]
    stage.shape(hips, coat, z, BICYCLIST)
    stage.disc(*at(0, 0.8), 0.05 * m, 0.05 * m, (190, 30, 30), z, BICYCLIST)
    _head(stage, at(0, 1.6), m, z, BICYCLIST, skin, stage.dice.pick(CLOTHES))
