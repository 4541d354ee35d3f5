"""Layout of a scene: the road and its ground, objects along it and traffic on it, drawn from far to near."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gosvae.datasets.streets.buildings import Wall, draw_building, draw_fence
from gosvae.datasets.streets.furniture import LEAVES, draw_bush, draw_lamp, draw_sign, draw_traffic_light, draw_tree
from gosvae.datasets.streets.people import draw_bicyclist, draw_pedestrian
from gosvae.datasets.streets.stage import PAVEMENT, ROAD, TREE, Dice, Rgb, Stage
from gosvae.datasets.streets.vehicles import KINDS, PAINTS, Vehicle, draw_vehicle

FAR_M = 170.0


@dataclass(frozen=True)
class Plan:
    """Plan of a street. Distances are in metres; left is negative, and the camera is at x = 0.

    Attributes:
        style: kind of street, "city", "suburb" or "park".
        lane: width of a lane.
        centre: x of the centre line.
        left, right: x of the edges of the road.
        parking: whether cars may park at the (left, right) edge.
        paving: (left, right) widths of the pavements.
        verge: (left, right) widths of the grass or plaza behind the pavements.
        bend: curvature of the road, whose x offset at distance z is bend * z * z.
        junction: z range of a side road on both sides, or None.
    """

    style: str
    lane: float
    centre: float
    left: float
    right: float
    parking: tuple[bool, bool]
    paving: tuple[float, float]
    verge: tuple[float, float]
    bend: float
    junction: tuple[float, float] | None
    leaves: tuple[Rgb, ...]
    traffic: float

    def shift(self, x: float, z: float) -> float:
        """Return the x, on the bent road at distance `z`, of a point that is `x` metres beside its axis."""
        return x + self.bend * z * z

    def edge(self, side: int) -> float:
        """Return the x of the kerb on a side."""
        return self.right if side > 0 else self.left

    def line(self, side: int) -> float:
        """Return the x of the line at which gardens and houses begin on a side."""
        i = side > 0
        return self.edge(side) + side * (self.paving[i] + self.verge[i])


def make_plan(dice: Dice) -> Plan:
    """Return a random plan of a street."""
    style = dice.pick(("city", "city", "suburb", "suburb", "park"))
    lane = dice.between(2.9, 3.6)
    ahead, oncoming = dice.pick((1, 1, 1, 2)), dice.pick((0, 1, 1, 1, 2))
    parking = (dice.chance(0.5), dice.chance(0.5))
    inner = dice.chance(0.5)
    centre = -lane * 0.5 - (lane if ahead == 2 and not inner else 0.0) + dice.between(-0.3, 0.3)
    right = centre + lane * ahead + 0.3 + 2.2 * parking[1]
    left = centre - lane * oncoming - 0.3 - 2.2 * parking[0]
    low, high = {"city": (0.0, 0.8), "suburb": (0.5, 3.0), "park": (1.0, 4.0)}[style]
    start = dice.between(14, 60)
    return Plan(
        style=style,
        lane=lane,
        centre=centre,
        left=left,
        right=right,
        parking=parking,
        paving=(dice.between(1.6, 4.2), dice.between(1.6, 4.2)),
        verge=(dice.between(low, high), dice.between(low, high)),
        bend=dice.between(-0.0016, 0.0016) if dice.chance(0.6) else 0.0,
        junction=(start, start + dice.between(8, 12)) if dice.chance(0.5) else None,
        leaves=LEAVES[dice.pick(("summer", "summer", "spring", "autumn"))],
        traffic=dice.pick((0.3, 0.7, 1.0, 1.0)),
    )


class Scene:
    """Scene that places things on a stage and draws them, in the order of their distance."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self.stage, self.plan, self.dice = stage, plan, stage.dice
        self._things: list[tuple[float, Callable[[], None]]] = []

    def draw(self) -> None:
        """Draw the ground, then shadows, then all things from far to near."""
        self._ground()
        self._backdrop()
        for side in (-1, 1):
            self._line_with_lots(side)
            self._furnish(side)
            self._park(side)
            self._people(side)
        self._traffic()
        self.stage.settle_ground()
        for _, draw in sorted(self._things, key=lambda thing: -thing[0]):
            draw()

    def _add(self, z: float, draw: Callable[[], None]) -> None:
        self._things.append((z, draw))

    def _in_junction(self, z: float, margin: float = 0.0) -> bool:
        junction = self.plan.junction
        return junction is not None and junction[0] - margin < z < junction[1] + margin

    # Ground

    def _strip(self, x0: float, x1: float, z0: float, z1: float, rgb: Rgb, label: int, y: float = 0.0) -> None:
        shift = self.plan.shift
        corners = [(shift(x0, z0), y, z0), (shift(x0, z1), y, z1), (shift(x1, z1), y, z1), (shift(x1, z0), y, z0)]
        self.stage.face(corners, rgb, label)

    def _ground(self) -> None:
        plan, dice = self.plan, self.dice
        asphalt = dice.tint(dice.pick(((112, 112, 114), (128, 126, 124), (96, 98, 102))), 10)
        paving = dice.tint(dice.pick(((168, 160, 150), (150, 148, 146), (182, 170, 154), (140, 122, 110))), 10)
        grass = dice.tint(dice.pick(((104, 118, 62), (88, 104, 58), (126, 124, 78))), 10)
        kerb = dice.tint((184, 182, 178), 10)
        garden = PAVEMENT if plan.style == "city" else TREE
        z0 = 1.0
        while z0 < 400:
            z1 = z0 * 1.27 + 0.2
            for side in (-1, 1):
                edge, i = plan.edge(side), side > 0
                back = edge + side * plan.paving[i]
                self._strip(back, edge + side * 300, z0, z1, paving if garden == PAVEMENT else grass, garden)
                self._strip(edge, back, z0, z1, paving, PAVEMENT)
                self._strip(edge, edge + side * 0.22, z0, z1, kerb, PAVEMENT)
                self._strip(edge, edge - side * 0.12, z0, z1, (88, 86, 84), ROAD)
            self._strip(plan.left, plan.right, z0, z1, asphalt, ROAD)
            z0 = z1
        self._slabs(paving)
        if plan.junction:
            self._strip(-300, 300, *plan.junction, asphalt, ROAD)
        for _ in range(int(dice.between(0, 7))):
            z, x = dice.between(5, 30), dice.between(plan.left + 0.5, plan.right - 1.5)
            patch = dice.tint(asphalt, 14)
            self._strip(x, x + dice.between(0.5, 1.5), z, z + dice.between(0.5, 6), patch, ROAD)
        self._markings()

    def _slabs(self, paving: Rgb) -> None:
        """Draw the joints between the slabs of the pavements."""
        joint = (paving[0] - 22, paving[1] - 22, paving[2] - 22)
        pitch = self.dice.between(0.9, 1.8)
        for side in (-1, 1):
            edge = self.plan.edge(side)
            back = edge + side * self.plan.paving[side > 0]
            for i in range(int(24 / pitch)):
                z = 3 + i * pitch
                self._strip(edge + side * 0.22, back, z, z + 0.05, joint, PAVEMENT)

    def _markings(self) -> None:
        plan, dice = self.plan, self.dice
        white = dice.tint(dice.pick(((222, 222, 216), (198, 198, 194), (176, 174, 168))), 8)
        dash, gap = dice.between(1.8, 4.0), dice.between(2.0, 6.0)
        offset = dice.between(0, dash + gap)
        dividers = [plan.centre] if plan.left < plan.centre - 1 - 2.2 * plan.parking[0] else []
        dividers += [plan.centre + plan.lane] if plan.right > plan.centre + plan.lane * 1.8 else []
        for x in dividers:
            for i in range(int(90 / (dash + gap)) + 1):
                z = i * (dash + gap) + offset
                if z > 2 and not self._in_junction(z, 2):
                    self._strip(x - 0.07, x + 0.07, z, z + dash, white, ROAD)
        lines = dice.pick(((), (0.25,), (0.25,), (0.2, 0.42)))
        yellow = (214, 176, 60) if len(lines) == 2 or dice.chance(0.15) else white
        for side in (-1, 1):
            for inset in lines:
                x = plan.edge(side) - side * inset
                z0 = 1.0
                while z0 < 120:
                    z1 = z0 * 1.25 + 0.5
                    if not self._in_junction(z0) and not self._in_junction(z1):
                        self._strip(x - 0.055, x + 0.055, z0, z1, yellow, ROAD)
                    z0 = z1
        crossing = plan.junction[0] - 4 if plan.junction else dice.between(10, 45)
        if dice.chance(0.45):
            for i in range(int((plan.right - plan.left) / 1.0)):
                x = plan.left + 0.3 + i
                self._strip(x, x + 0.5, crossing, crossing + 2.8, white, ROAD)
            self._strip(plan.centre, plan.right, crossing - 1.6, crossing - 1.25, white, ROAD)

    # Objects along the street

    def _backdrop(self) -> None:
        """Add distant houses and trees at the end of the street."""
        dice, shift = self.dice, self.plan.shift
        x = -200.0
        while x < 200:
            wide = dice.between(8, 26)
            z = dice.between(190, 230)
            if dice.chance(0.5):
                wall = Wall((shift(x, 175), z), (shift(x + wide, 175), z + 1), -1)
                height = dice.between(6, 14)
                self._add(z, partial(draw_building, self.stage, wall, height, 8.0, pitched=dice.chance(0.5)))
            else:
                tree = partial(draw_tree, self.stage, shift(x, 175), z, dice.between(7, 14))
                self._add(z, partial(tree, dice.pick(self.plan.leaves), cone=False))
            x += wide * 0.6

    def _line_with_lots(self, side: int) -> None:
        """Add houses, gardens and parks from the camera to the far end."""
        dice, plan = self.dice, self.plan
        built = {"city": 0.93, "suburb": 0.72, "park": 0.25}[plan.style]
        tall = {"city": dice.between(9, 20), "suburb": dice.between(5, 8), "park": dice.between(5, 9)}[plan.style]
        line, z = plan.line(side), dice.between(-6, 3)
        fence_style, fence_rgb = (
            dice.pick((0, 1, 2, 2, 3)),
            dice.pick(((60, 66, 64), (46, 72, 58), (150, 120, 88), (122, 96, 70), (190, 192, 190))),
        )
        while z < FAR_M:
            length = dice.between(8, 22) if plan.style == "city" else dice.between(8, 15)
            z1 = z + length
            if plan.junction and z1 > plan.junction[0] - 2 and z < plan.junction[1] + 2:
                if plan.junction[0] - 2 - z > 5:
                    z1 = plan.junction[0] - 2
                else:
                    z = plan.junction[1] + 2
                    continue
            if z1 > 4:
                setback = 0.0 if plan.style == "city" else dice.between(2, 7)
                if dice.chance(built):
                    self._house(side, line + side * setback, max(z, 1.0), z1 - dice.pick((0.0, 0.0, 1.5, 4.0)), tall)
                else:
                    self._grove(side, line, max(z, 3.0), z1)
                if (setback or plan.style == "park") and dice.chance(0.6):
                    self._hedge_or_fence(side, line, max(z, 1.5), z1, fence_style, fence_rgb)
            z = z1

    def _house(self, side: int, x: float, z0: float, z1: float, tall: float) -> None:
        if z1 - z0 < 3:
            return
        dice, shift = self.dice, self.plan.shift
        wall = Wall((shift(x, z0), z0), (shift(x, z1), z1), side)
        height, depth = tall * dice.between(0.75, 1.3), dice.between(7, 12)
        pitched = dice.chance(0.3 if self.plan.style == "city" else 0.85)
        far = (wall.far[0] + side * depth, z1)
        self.stage.cast([wall.near, wall.far, far, (wall.near[0] + side * depth, z0)], height)
        self._add(z1, partial(draw_building, self.stage, wall, height, depth, pitched=pitched))

    def _grove(self, side: int, x: float, z0: float, z1: float) -> None:
        dice = self.dice
        for _ in range(int(dice.between(2, 6))):
            self._tree(x + side * dice.between(2, 14), dice.between(max(z0, 6.0), max(z1, 8.0)), dice.between(5, 11))
        for _ in range(int(dice.between(1, 5))):
            z = dice.between(max(z0, 5.0), max(z1, 6.0))
            bush = partial(draw_bush, self.stage, self.plan.shift(x + side * dice.between(1, 5), z), z)
            self._add(z, partial(bush, dice.between(0.8, 2.2), dice.pick(self.plan.leaves)))

    def _tree(self, x: float, z: float, height: float) -> None:
        dice, stage = self.dice, self.stage
        x = self.plan.shift(x, z)
        stage.cast([(x - 0.15, z), (x + 0.15, z)], height * 0.5)
        stage.dapple(x, z, height * 0.3, height * 0.65)
        tree = partial(draw_tree, stage, x, z, height, dice.tint(dice.pick(self.plan.leaves), 8))
        self._add(z, partial(tree, cone=dice.chance(0.12)))

    def _hedge_or_fence(self, side: int, x: float, z0: float, z1: float, style: int, rgb: Rgb) -> None:
        dice, shift, stage = self.dice, self.plan.shift, self.stage
        if dice.chance(0.3):
            height, z, leaf = dice.between(0.9, 1.7), max(z0, 5.0), dice.pick(self.plan.leaves)
            while z < min(z1, 70.0):
                self._add(z, partial(draw_bush, stage, shift(x + side * 0.5, z), z, height, leaf))
                z += height * 0.6
            return
        height = 0.8 if style == 3 else dice.between(1.0, 1.9)
        z = z0
        while z < z1:
            end = min(z + 3.0, z1)
            wall = Wall((shift(x, z), z), (shift(x, end), end), side)
            stage.cast([wall.near, wall.far], height)
            self._add(end, partial(draw_fence, stage, wall, height, style, rgb))
            z = end

    def _furnish(self, side: int) -> None:
        """Add lamps, signs, traffic lights and street trees along the kerb."""
        dice, plan, stage = self.dice, self.plan, self.stage
        kerb = plan.edge(side) + side * 0.5
        step, z, height = dice.between(18, 32), dice.between(7, 26), dice.between(5, 8.5)
        reach = -side * dice.between(0.6, 2.0)
        while z < 130 and dice.chance(0.97):
            if not self._in_junction(z, 1):
                x = plan.shift(kerb, z)
                stage.cast([(x - 0.07, z), (x + 0.07, z)], height)
                self._add(z, partial(draw_lamp, stage, x, z, height, reach))
            z += step
        for _ in range(int(dice.between(1, 5))):
            z = dice.between(7, 45)
            x = plan.shift(kerb, z)
            if not self._in_junction(z, 1):
                stage.cast([(x - 0.3, z), (x + 0.3, z)], 2.8, 2.0)
                self._add(z, partial(draw_sign, stage, x, z))
        if plan.junction or dice.chance(0.15):
            z = plan.junction[0] - 5 if plan.junction else dice.between(14, 40)
            if dice.chance(0.7):
                self._add(z, partial(draw_traffic_light, stage, plan.shift(kerb, z), z))
        if dice.chance({"city": 0.35, "suburb": 0.5, "park": 0.6}[plan.style]):
            step, tall, z = dice.between(6, 14), dice.between(4.5, 8.5), dice.between(8, 16)
            while z < 110:
                if not self._in_junction(z, 3):
                    self._tree(kerb + side * 0.6, z, tall * dice.between(0.85, 1.15))
                z += step

    # Vehicles and people

    def _car(self, x: float, z: float, heading: tuple[float, float], kinds: tuple[str, ...]) -> None:
        dice, plan, stage = self.dice, self.plan, self.stage
        kind = KINDS[dice.pick(kinds)]
        turn = 2 * plan.bend * z + dice.between(-0.03, 0.03)
        hx, hz = heading[0] + turn * heading[1], heading[1] - turn * heading[0]
        norm = (hx * hx + hz * hz) ** 0.5
        car = Vehicle(plan.shift(x, z), z, (hx / norm, hz / norm), kind, dice.tint(dice.pick(PAINTS), 12))
        stage.cast(car.footprint(), kind.height * 0.9)
        stage.darken(car.footprint(0.12), 0.42)
        self._add(z, partial(draw_vehicle, stage, car))

    def _park(self, side: int) -> None:
        dice, plan = self.dice, self.plan
        if not plan.parking[side > 0]:
            return
        x, z, full = plan.edge(side) - side * 1.1, dice.between(5.5, 14), dice.between(0.4, 0.95)
        while z < 110:
            if dice.chance(full) and not self._in_junction(z, 6):
                forward = 1.0 if side > 0 or dice.chance(0.2) else -1.0
                self._car(x, z, (0.0, forward), ("hatch", "hatch", "saloon", "estate", "estate", "van"))
            z += dice.between(5.6, 7.2)

    def _traffic(self) -> None:
        dice, plan = self.dice, self.plan
        kinds = ("hatch", "hatch", "saloon", "saloon", "estate", "van", "bus")
        lanes = [(plan.centre + plan.lane * 0.5, 1.0)]
        if plan.right - 2.2 * plan.parking[1] > plan.centre + plan.lane * 1.8:
            lanes.append((plan.centre + plan.lane * 1.5, 1.0))
        if plan.left + 2.2 * plan.parking[0] < plan.centre - plan.lane * 0.8:
            lanes.append((plan.centre - plan.lane * 0.5, -1.0))
        for x, forward in lanes:
            z = dice.between(9, 22) if abs(x) < 1.5 else dice.between(6, 20)
            while z < 110:
                if dice.chance(0.6 * plan.traffic):
                    self._car(x + dice.between(-0.2, 0.2), z, (0.0, forward), kinds)
                z += dice.between(12, 26)
        if plan.junction and dice.chance(0.5):
            z = sum(plan.junction) / 2
            self._car(dice.between(-12, 12), z + dice.between(-2, 2), (dice.pick((-1.0, 1.0)), 0.0), kinds)
        for _ in range(dice.pick((0, 0, 0, 1, 1, 2))):
            side = dice.pick((-1, 1))
            z = dice.between(7, 32)
            x = plan.edge(side) - side * (0.7 + 2.2 * plan.parking[side > 0])
            self._rider(x, z, across=False)
        if dice.chance(0.2):
            self._rider(dice.between(plan.left, plan.right), dice.between(9, 26), across=True)

    def _rider(self, x: float, z: float, *, across: bool) -> None:
        x = self.plan.shift(x, z)
        half = 0.8 if across else 0.25
        self.stage.cast([(x - half, z), (x + half, z)], 1.7)
        self.stage.darken([(x - half, z - 0.2), (x + half, z - 0.2), (x + half, z + 0.2), (x - half, z + 0.2)], 0.6)
        self._add(z, partial(draw_bicyclist, self.stage, x, z, across=across))

    def _people(self, side: int) -> None:
        dice, plan = self.dice, self.plan
        edge, wide = plan.edge(side), plan.paving[side > 0]
        for _ in range(int(dice.between(0, 5) * dice.pick((0.4, 1.0, 2.0)))):
            z = dice.between(6, 35)
            self._walker(edge + side * dice.between(0.7, max(0.9, wide - 0.3)), z)
            if dice.chance(0.3):
                self._walker(edge + side * dice.between(0.7, max(0.9, wide - 0.3)), z + dice.between(-0.5, 0.8))
        if side > 0 and dice.chance(0.25):
            self._walker(dice.between(plan.left, plan.right), dice.between(10, 30))

    def _walker(self, x: float, z: float) -> None:
        x = self.plan.shift(x, z)
        height = self.dice.between(1.55, 1.92) if self.dice.chance(0.9) else self.dice.between(1.0, 1.4)
        self.stage.cast([(x - 0.18, z), (x + 0.18, z)], height)
        self.stage.darken([(x - 0.25, z - 0.15), (x + 0.25, z - 0.15), (x + 0.25, z + 0.15), (x - 0.25, z + 0.15)], 0.6)
        self._add(z, partial(draw_pedestrian, self.stage, x, z, height))
