"""Cars, vans and buses: a side profile extruded over the width, seen from any direction."""

from __future__ import annotations

from dataclasses import dataclass

from gosvae.datasets.streets.stage import CAR, Point, Rgb, Stage, mix

PAINTS: tuple[Rgb, ...] = (
    (196, 198, 202), (40, 42, 46), (228, 228, 226), (140, 22, 26), (30, 58, 120), (96, 100, 106),
    (72, 84, 74), (166, 158, 142), (22, 74, 92), (206, 168, 44), (120, 126, 132), (60, 24, 30),
)  # fmt: skip
GLASS: Rgb = (44, 52, 62)

# Profiles from the rear sill over the roof to the front sill: (share of length, share of height, kind of the face that
# starts here). Then the side windows as shares of length and height.
Profile = tuple[tuple[float, float, str], ...]
HATCH: Profile = ((0, 0.16, "rear"), (0.0, 0.58, "glass"), (0.12, 0.97, "roof"), (0.52, 1.0, "glass"),
                  (0.72, 0.62, "roof"), (0.97, 0.5, "front"), (1, 0.16, ""))  # fmt: skip
SALOON: Profile = ((0, 0.16, "rear"), (0.0, 0.6, "roof"), (0.16, 0.64, "glass"), (0.3, 0.98, "roof"),
                   (0.55, 1.0, "glass"), (0.74, 0.64, "roof"), (0.98, 0.52, "front"), (1, 0.16, ""))  # fmt: skip
ESTATE: Profile = ((0, 0.16, "rear"), (0.0, 0.58, "glass"), (0.07, 0.98, "roof"), (0.56, 1.0, "glass"),
                   (0.74, 0.62, "roof"), (0.98, 0.5, "front"), (1, 0.16, ""))  # fmt: skip
VAN: Profile = ((0, 0.12, "rear"), (0.0, 0.98, "roof"), (0.72, 1.0, "glass"), (0.86, 0.58, "roof"),
                (0.99, 0.46, "front"), (1, 0.12, ""))  # fmt: skip
BUS: Profile = ((0, 0.1, "rear"), (0.0, 0.98, "roof"), (0.98, 1.0, "glass"), (1.0, 0.38, "front"), (1, 0.1, ""))


@dataclass(frozen=True)
class Kind:
    """Kind of vehicle: sizes in metres, and side windows as polygons in shares of length and height."""

    profile: Profile
    length: float
    width: float
    height: float
    windows: tuple[tuple[tuple[float, float], ...], ...]
    wheel: float


KINDS: dict[str, Kind] = {
    "hatch": Kind(HATCH, 3.9, 1.74, 1.48, (
        ((0.08, 0.62), (0.15, 0.92), (0.34, 0.93), (0.34, 0.62)),
        ((0.37, 0.62), (0.37, 0.93), (0.52, 0.93), (0.66, 0.63))), 0.3),
    "saloon": Kind(SALOON, 4.6, 1.8, 1.44, (
        ((0.22, 0.65), (0.31, 0.92), (0.43, 0.93), (0.43, 0.65)),
        ((0.45, 0.65), (0.45, 0.93), (0.55, 0.93), (0.69, 0.65))), 0.32),
    "estate": Kind(ESTATE, 4.5, 1.8, 1.55, (
        ((0.06, 0.62), (0.1, 0.92), (0.36, 0.93), (0.36, 0.62)),
        ((0.39, 0.62), (0.39, 0.93), (0.56, 0.93), (0.69, 0.63))), 0.33),
    "van": Kind(VAN, 5.2, 1.95, 2.2, (((0.66, 0.6), (0.66, 0.9), (0.73, 0.9), (0.83, 0.6)),), 0.34),
    "bus": Kind(BUS, 10.5, 2.5, 3.1, tuple(
        ((0.03 + i * 0.135, 0.42), (0.03 + i * 0.135, 0.84), (0.15 + i * 0.135, 0.84), (0.15 + i * 0.135, 0.42))
        for i in range(7)), 0.48),
}  # fmt: skip

# A regular dodecagon, close to a circle; sin and cos as constants.
CIRCLE: tuple[tuple[float, float], ...] = (
    (1.0, 0.0), (0.866, 0.5), (0.5, 0.866), (0.0, 1.0), (-0.5, 0.866), (-0.866, 0.5),
    (-1.0, 0.0), (-0.866, -0.5), (-0.5, -0.866), (0.0, -1.0), (0.5, -0.866), (0.866, -0.5),
)  # fmt: skip


@dataclass(frozen=True)
class Vehicle:
    """A vehicle on the ground: centre (m), unit heading in the ground plane, kind and paint."""

    x: float
    z: float
    heading: tuple[float, float]
    kind: Kind
    paint: Rgb

    def at(self, along: float, across: float, up: float) -> Point:
        """Return a point in the world by its distances in metres from the rear, to the right of the axis, and up."""
        hx, hz = self.heading
        along -= self.kind.length / 2
        return self.x + along * hx + across * hz, up, self.z + along * hz - across * hx

    def footprint(self, margin: float = 0.0) -> list[tuple[float, float]]:
        """Return the (x, z) corners on the ground."""
        half, length = self.kind.width / 2 + margin, self.kind.length
        corners = [(-margin, -half), (length + margin, -half), (length + margin, half), (-margin, half)]
        return [(p[0], p[2]) for p in (self.at(a, b, 0) for a, b in corners)]


def _facing(stage: Stage, point: Point, normal: Point) -> bool:
    """Return whether the camera is on the outer side of a face."""
    x, y, z = point
    return -x * normal[0] + (stage.camera.height_m - y) * normal[1] - z * normal[2] > 0


def _ends(stage: Stage, car: Vehicle, rear: bool) -> None:
    """Draw lights, plate and bumper on the rear or the front."""
    kind, dusk = car.kind, stage.light.dusk > 0.4
    along = -0.01 if rear else kind.length + 0.01
    half, height = kind.width / 2, kind.height

    def patch(across: float, wide: float, low: float, high: float, rgb: Rgb) -> None:
        ys = ((across - wide, low), (across + wide, low), (across + wide, high), (across - wide, high))
        stage.face([car.at(along, a, y * height) for a, y in ys], rgb, CAR)

    dark = mix(car.paint, (24, 24, 26), 0.7)
    patch(0, half, 0.16, 0.28, dark)
    if not rear:
        patch(0, half * 0.5, 0.3, 0.42, (26, 26, 28))
    if kind.length > 8:
        patch(0, half * 0.8, 0.55 if rear else 0.42, 0.8 if rear else 0.84, GLASS)
    elif rear and kind.height > 2:
        patch(-half * 0.45, half * 0.35, 0.55, 0.85, GLASS)
        patch(half * 0.45, half * 0.35, 0.55, 0.85, GLASS)
    lamp = ((255, 70, 50) if dusk else (178, 26, 26)) if rear else ((255, 252, 230) if dusk else (222, 224, 220))
    for sign in (-1, 1):
        patch(sign * half * 0.8, half * 0.17, 0.38, 0.54 if rear else 0.48, lamp)
    patch(0, half * 0.28, 0.3, 0.37, (232, 226, 190) if rear else (236, 236, 232))


def _wheel(stage: Stage, car: Vehicle, along: float, across: float) -> None:
    radius = car.kind.wheel
    for size, rgb in ((1.0, (22, 22, 24)), (0.6, (136, 138, 142))):
        ring = [car.at(along + c * radius * size, across, radius + s * radius * size) for c, s in CIRCLE]
        stage.face(ring, rgb, CAR)


def draw_vehicle(stage: Stage, car: Vehicle) -> None:
    """Draw the faces of a vehicle that the camera sees, from far to near."""
    kind, (hx, hz) = car.kind, car.heading
    half, light = kind.width / 2, stage.light
    side = next((s for s in (-1, 1) if _facing(stage, car.at(kind.length / 2, s * half, 0.5), (s * hz, 0, -s * hx))), 0)
    stage.face([car.at(a, b * half * 0.94, y) for a, b, y in _underside(kind)], (18, 18, 20), CAR)
    for along in (0.18, 0.8):
        for across in (-half * 0.96, half * 0.96):
            _wheel(stage, car, along * kind.length, across * 0.96)
    faces = []
    for (l0, y0, what), (l1, y1, _) in zip(kind.profile, kind.profile[1:], strict=False):
        dl, dy = (l1 - l0) * kind.length, (y1 - y0) * kind.height
        size = (dl * dl + dy * dy) ** 0.5
        normal = (-dy / size * hx, dl / size, -dy / size * hz)
        ends = ((l0, y0, -half), (l0, y0, half), (l1, y1, half), (l1, y1, -half))
        quad = [car.at(a * kind.length, b, y * kind.height) for a, y, b in ends]
        if _facing(stage, quad[0], normal):
            faces.append((quad[0][2] + quad[2][2], quad, what, light.on(*normal)))
    for _, quad, what, level in sorted(faces, key=lambda face: -face[0]):
        if what == "glass":
            stage.face(quad, car.paint, CAR, level)
            inset = [_inside(p, quad) for p in quad]
            stage.face(inset, mix(GLASS, light.haze_rgb, 0.25 * max(0.0, level - 0.6)), CAR)
        else:
            stage.face(quad, car.paint, CAR, level)
            if what in ("rear", "front"):
                _ends(stage, car, rear=what == "rear")
    if side:
        _side(stage, car, side * half, light.on(side * hz, 0, -side * hx))


def _underside(kind: Kind) -> tuple[tuple[float, float, float], ...]:
    length, low = kind.length, 0.03
    return (0.15, -1, low), (0.15, 1, low), (length - 0.15, 1, low), (length - 0.15, -1, low)


def _inside(p: Point, quad: list[Point]) -> Point:
    """Return the corner, moved a tenth of the way to the centre of the quad."""
    cx, cy, cz = (sum(q[i] for q in quad) / len(quad) for i in range(3))
    return p[0] + (cx - p[0]) * 0.12, p[1] + (cy - p[1]) * 0.12, p[2] + (cz - p[2]) * 0.12


def _side(stage: Stage, car: Vehicle, across: float, level: float) -> None:
    """Draw the visible side: body, sill, windows, door line, wheels."""
    kind = car.kind

    def on(shares: tuple[tuple[float, float], ...]) -> list[Point]:
        return [car.at(a * kind.length, across, y * kind.height) for a, y in shares]

    stage.face(on(tuple((a, y) for a, y, _ in kind.profile)), car.paint, CAR, level)
    stage.face(on(((0, 0.16), (0, 0.24), (1, 0.24), (1, 0.16))), mix(car.paint, (20, 20, 22), 0.6), CAR, level)
    stage.face(on(((0.02, 0.5), (0.02, 0.53), (0.97, 0.5), (0.97, 0.47))), mix(car.paint, (255, 255, 255), 0.2), CAR)
    for window in kind.windows:
        stage.face(on(window), mix(GLASS, stage.light.haze_rgb, 0.12), CAR)
    stage.face(on(((0.39, 0.26), (0.39, 0.6), (0.394, 0.6), (0.394, 0.26))), (30, 30, 32), CAR)
    for along in (0.18, 0.8):
        _wheel(stage, car, along * kind.length, across * 1.01)
