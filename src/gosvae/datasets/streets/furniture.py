"""Trees, poles, traffic lights and signs."""

from __future__ import annotations

import numpy as np

from gosvae.datasets.streets.stage import POLE, SIGN, TREE, Rgb, Stage, mix

LEAVES: dict[str, tuple[Rgb, ...]] = {
    "summer": ((66, 92, 42), (78, 100, 50), (52, 80, 44), (92, 108, 56)),
    "autumn": ((150, 104, 40), (126, 88, 44), (98, 96, 48), (164, 124, 52)),
    "spring": ((104, 130, 60), (88, 116, 54), (120, 136, 74), (74, 102, 52)),
}
# Jagged outlines of leaf clusters, drawn by hand, with a radius of about 1.
CLUSTERS = np.array((
    ((1, 0), (0.6, 0.35), (0.75, 0.8), (0.1, 0.7), (-0.3, 1), (-0.5, 0.5), (-1, 0.3), (-0.7, -0.2), (-0.8, -0.7),
     (-0.2, -0.65), (0.2, -1), (0.5, -0.6), (0.9, -0.6)),
    ((0.9, 0.3), (0.4, 0.5), (0.3, 1), (-0.2, 0.6), (-0.8, 0.7), (-0.7, 0.1), (-1, -0.4), (-0.4, -0.5), (-0.3, -0.8),
     (-0.1, -1), (0.3, -0.6), (0.9, -0.8), (0.65, -0.2)),
    ((1, -0.2), (0.7, 0.2), (0.9, 0.7), (0.3, 0.6), (0, 0.95), (-0.4, 0.55), (-0.95, 0.6), (-0.65, 0), (-1, -0.5),
     (-0.45, -0.6), (-0.2, -0.95), (0.25, -0.7), (0.6, -0.9)),
))  # fmt: skip


def draw_crown(stage: Stage, u: float, v: float, ru: float, rv: float, z: float, rgb: Rgb, *, cone: bool) -> None:
    """Draw leaves as ragged clusters in an ellipse (or cone) around canvas position (u, v), lit from the sun's side."""
    generator, light = stage.dice.generator, stage.light
    if u + ru * 1.4 < 0 or u - ru * 1.4 > stage.width:
        return
    n = int(min(72, max(8, ru * 0.8)))
    if cone:
        base = [(u - ru, v + rv), (u, v - rv * 1.1), (u + ru, v + rv)]
        stage.shape(base, mix(rgb, (20, 30, 20), 0.5), z, TREE)
    else:
        stage.disc(u, v, ru * 0.8, rv * 0.8, mix(rgb, (20, 30, 20), 0.5), z, TREE)
    a, b, c, d = generator.random((4, n))
    dx, dy = (a + b - 1.0) * 1.25, (c + d - 1.0) * 1.25
    if cone:
        dx = dx * (dy + 1.25) * 0.5
    lit = dx * light.sun[0] - dy * 0.8 + (a - b) * 0.7
    radius = (0.5 + c * 0.5) * (0.42 if n < 20 else 0.3 if n < 45 else 0.24) * (ru + rv) * 0.5
    number = np.arange(n)
    outline = CLUSTERS[number % 3] * radius[:, None, None]
    outline[..., 0] *= 1 - 2 * (number % 2)[:, None]
    outline += np.stack((u + dx * ru, v + dy * rv), axis=-1)[:, None]
    order = np.argsort(lit, kind="stable")  # the brightest leaves lie in front
    level = np.clip(9.2 + lit * (3.0 + 3.5 * light.direct), 4.5, 15.0).astype(int)
    stage.scatter(outline[order].reshape(n, -1).tolist(), level[order].tolist(), rgb, z, TREE)


def draw_tree(stage: Stage, x: float, z: float, height: float, rgb: Rgb, *, cone: bool) -> None:
    """Draw a tree: trunk, branches, crown."""
    dice, m = stage.dice, stage.pixels_per_metre(z)
    (u, v), bark = stage.camera.at(x, 0, z), dice.tint((84, 70, 56), 16)
    clear, radius = height * dice.between(0.22, 0.34), height * dice.between(0.26, 0.36)
    thick = 0.014 * height + 0.06
    lean = dice.between(-0.15, 0.15)
    if cone:
        clear, radius = height * 0.1, height * 0.2
    fork = (u + lean * m, v - clear * m)
    trunk = [(u - thick * m * 1.3, v), (fork[0] - thick * m, fork[1]), (fork[0] + thick * m, fork[1])]
    stage.shape([*trunk, (u + thick * m * 1.3, v)], bark, z, TREE)
    lit = thick * m * (0.4 if stage.light.sun[0] > 0 else -0.4)
    stage.stroke([(u + lit, v), (fork[0] + lit, fork[1])], thick * m * 0.7, mix(bark, (255, 250, 235), 0.2), z, TREE)
    for _ in range(0 if cone else 4):
        tip = (fork[0] + dice.between(-0.6, 0.6) * radius * m, fork[1] - dice.between(0.2, 0.6) * (height - clear) * m)
        stage.stroke([fork, tip], thick * m, bark, z, TREE)
    middle = (clear + height) / 2
    draw_crown(stage, fork[0], v - middle * m, radius * m, (height - clear) / 2 * m, z, rgb, cone=cone)


def draw_bush(stage: Stage, x: float, z: float, height: float, rgb: Rgb) -> None:
    """Draw a bush on the ground, or a piece of a hedge."""
    m, (u, v) = stage.pixels_per_metre(z), stage.camera.at(x, 0, z)
    draw_crown(stage, u, v - height * 0.45 * m, height * 0.75 * m, height * 0.5 * m, z, rgb, cone=False)


def draw_lamp(stage: Stage, x: float, z: float, height: float, reach: float) -> None:
    """Draw a street lamp with an arm of `reach` metres (signed) over the road."""
    m, (u, v) = stage.pixels_per_metre(z), stage.camera.at(x, 0, z)
    rgb = stage.dice.pick(((112, 116, 118), (70, 74, 76), (140, 142, 140)))
    top = v - height * m
    stage.stroke([(u, v), (u, top)], 0.17 * m, rgb, z, POLE)
    stage.stroke([(u, v), (u, v - 1.2 * m)], 0.26 * m, rgb, z, POLE)
    tip, way = u + reach * m, (0.6 if reach > 0 else -0.6)
    arm = [(u, top), (u + reach * 0.4 * m, top - 0.3 * m), (tip, top - 0.35 * m)]
    stage.stroke(arm, 0.12 * m, rgb, z, POLE)
    head = (255, 236, 180) if stage.light.dusk > 0.5 else (196, 198, 196)
    stage.stroke([(tip, top - 0.33 * m), (tip + way * m, top - 0.33 * m)], 0.22 * m, head, z, POLE)


def draw_traffic_light(stage: Stage, x: float, z: float) -> None:
    """Draw a post with a signal head; the head counts as a sign, as in CamVid."""
    m, (u, v), dice = stage.pixels_per_metre(z), stage.camera.at(x, 0, z), stage.dice
    height = dice.between(3.0, 3.6)
    stage.stroke([(u, v), (u, v - height * m)], 0.16 * m, (92, 94, 96), z, POLE)
    high = v - (height + 0.05) * m
    _bar(stage, u, high + 0.53 * m, 0.25 * m, 0.53 * m, (24, 26, 26), z)
    on = dice.pick((0, 0, 1, 2, 2))
    for i, rgb in enumerate(((255, 60, 40), (255, 180, 40), (60, 240, 140))):
        dim = rgb if i == on else mix(rgb, (20, 20, 20), 0.82)
        stage.disc(u, high + (0.2 + 0.33 * i) * m, 0.12 * m, 0.12 * m, dim, z * 0.3, SIGN)


def draw_sign(stage: Stage, x: float, z: float) -> None:
    """Draw a post with a round, triangular, rectangular or octagonal sign and a simple symbol."""
    m, (u, v), dice = stage.pixels_per_metre(z), stage.camera.at(x, 0, z), stage.dice
    height, r = dice.between(2.1, 2.9), dice.between(0.34, 0.5)
    grey = dice.tint((150, 152, 154), 25)
    stage.stroke([(u, v), (u, v - (height + r * 0.7) * m)], 0.09 * m, grey, z, POLE)
    cv, r = v - height * m, r * m
    kind = dice.pick(("limit", "limit", "order", "warning", "warning", "panel", "panel", "noentry", "stop"))
    if kind == "limit":
        stage.disc(u, cv, r, r, (200, 24, 30), z, SIGN)
        stage.disc(u, cv, r * 0.72, r * 0.72, (240, 240, 236), z, SIGN)
        for dx in (-0.28, 0.2):
            _bar(stage, u + dx * r, cv, r * 0.14, r * 0.36, (24, 24, 26), z)
    elif kind == "order":
        stage.disc(u, cv, r, r, (24, 84, 170), z, SIGN)
        _bar(stage, u, cv + r * 0.15, r * 0.1, r * 0.45, (244, 244, 244), z)
        stage.shape([(u - r * 0.4, cv), (u, cv - r * 0.65), (u + r * 0.4, cv)], (244, 244, 244), z, SIGN)
    elif kind == "warning":
        for size, rgb in ((1.15, (204, 28, 30)), (0.72, (242, 240, 230))):
            tri = [(u - r * size, cv + r * 0.62 * size), (u, cv - r * 1.1 * size), (u + r * size, cv + r * 0.62 * size)]
            stage.shape(tri, rgb, z, SIGN)
        _bar(stage, u, cv + r * 0.05, r * 0.09, r * 0.32, (20, 20, 22), z)
    elif kind == "panel":
        rgb = dice.pick(((20, 100, 70), (28, 78, 160), (240, 200, 60), (236, 236, 232)))
        wide, tall = r * dice.between(0.9, 2.4), r * dice.between(0.8, 1.4)
        ink: Rgb = (250, 250, 250) if rgb[0] < 100 else (20, 20, 24)
        _bar(stage, u, cv, wide, tall, ink, z)
        _bar(stage, u, cv, wide - 0.08 * r, tall - 0.08 * r, rgb, z)
        for row in (-0.4, 0.0, 0.4):
            _bar(stage, u - wide * 0.15, cv + row * tall, wide * dice.between(0.3, 0.55), tall * 0.09, ink, z)
    else:
        octagon = ((0.42, 1), (1, 0.42), (1, -0.42), (0.42, -1), (-0.42, -1), (-1, -0.42), (-1, 0.42), (-0.42, 1))
        if kind == "stop":
            stage.shape([(u + p * r, cv + q * r) for p, q in octagon], (190, 22, 28), z, SIGN)
        else:
            stage.disc(u, cv, r, r, (196, 20, 28), z, SIGN)
        _bar(stage, u, cv, r * 0.7, r * 0.16, (246, 246, 244), z)


def _bar(stage: Stage, u: float, v: float, half_u: float, half_v: float, rgb: Rgb, z: float) -> None:
    """Draw an upright rectangle on a sign."""
    corners = [(u - half_u, v - half_v), (u + half_u, v - half_v), (u + half_u, v + half_v), (u - half_u, v + half_v)]
    stage.shape(corners, rgb, z, SIGN)
