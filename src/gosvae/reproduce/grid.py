"""Fig. 2: the original and the reconstructions of each image, the expert's maps, and magnified small objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from gosvae.datasets.palettes import class_palette
from gosvae.extras import needs
from gosvae.reproduce.pictures import MapArray, PictureRow, Pictures, Seen
from gosvae.units import kib

COLUMNS = 4
TILE = 336
GAP, MARGIN = 10, 16
_INSETS = 2
_FRAMES = ((255, 210, 0), (255, 80, 200))
"""Colours of the frames, one for each magnified object."""
_INK, _GREY, _WHITE = (20, 20, 20), (95, 95, 95), (255, 255, 255)
SMALL_OBJECTS = ("sign", "light", "person", "pedestrian", "rider", "bicycl", "pole", "motorcycle")
"""Parts of the names of classes with small objects that matter."""
_SMALLEST, _LARGEST = 2e-4, 2e-2
"""Smallest and largest share of the image's area that a magnified object has."""


@dataclass(frozen=True)
class Window:
    """Part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def overlaps(self, other: Window) -> bool:
        """Return whether the two windows share a pixel."""
        return (
            abs(self.top - other.top) < max(self.height, other.height)
            and abs(self.left - other.left) < max(self.width, other.width)
        )  # fmt: skip


def small_objects(class_map_HW: MapArray, class_names: Sequence[str], count: int = _INSETS) -> list[Window]:
    """Return windows around small objects in a map: classes in `SMALL_OBJECTS` first, larger objects first.

    Each window is a square whose side is a quarter of the image's height. Windows do not overlap; the first ones have
    different classes if there are several.
    """
    with needs("plot", "the search for small objects"):
        from scipy.ndimage import find_objects, label  # imported here: it is slow to load

    height, width = class_map_HW.shape
    side = max(16, height // 4)
    found: list[tuple[bool, int, int, Window]] = []
    for index in np.unique(class_map_HW):
        parts, _ = label(class_map_HW == index)
        name = class_names[int(index)].lower()
        wanted = any(word in name for word in SMALL_OBJECTS)
        for number, box in enumerate(find_objects(parts), start=1):
            area = int((parts[box] == number).sum())
            if not _SMALLEST * class_map_HW.size <= area <= _LARGEST * class_map_HW.size:
                continue
            middle = [(part.start + part.stop) // 2 for part in box]
            top = min(max(0, middle[0] - side // 2), max(0, height - side))
            left = min(max(0, middle[1] - side // 2), max(0, width - side))
            found.append((not wanted, -area, int(index), Window(top, left, min(side, height), min(side, width))))
    chosen: list[tuple[int, Window]] = []
    for fresh_class in (True, False):
        for _, _, index, window in sorted(found, key=lambda item: item[:3]):
            seen = any(index == other for other, _ in chosen)
            clear = not any(window.overlaps(other) for _, other in chosen)
            if len(chosen) < count and clear and not (fresh_class and seen):
                chosen.append((index, window))
    return [window for _, window in chosen]


def draw_grid(pictures: Pictures, path: Path) -> None:
    """Write the figure; the ending of the path chooses the format (WebP at quality 92, PNG).

    Four systems stand side by side. Each has, from top to bottom, its title, bytes and agreement, the reconstruction,
    the expert's map, and the magnified objects in both.
    """
    palette_m3 = class_palette(pictures.class_names)
    width = 2 * MARGIN + COLUMNS * TILE + (COLUMNS - 1) * GAP
    parts: list[Image.Image] = []
    for number, original in enumerate(pictures.rows[0].images):
        windows = small_objects(original.class_map_HW, pictures.class_names)
        tiles = [_tile(row, row.images[number], windows, palette_m3) for row in pictures.rows]
        for start in range(0, len(tiles), COLUMNS):
            line = Image.new("RGB", (width, max(tile.height for tile in tiles)), _WHITE)
            for column, tile in enumerate(tiles[start : start + COLUMNS]):
                line.paste(tile, (MARGIN + column * (TILE + GAP), 0))
            parts.append(line)
    parts.append(_legend(pictures, palette_m3, width))
    page = Image.new("RGB", (width, sum(part.height + MARGIN for part in parts) + MARGIN), _WHITE)
    y = MARGIN
    for part in parts:
        page.paste(part, (0, y))
        y += part.height + MARGIN
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=92)


def _tile(row: PictureRow, seen: Seen, windows: Sequence[Window], palette_m3: npt.NDArray[np.uint8]) -> Image.Image:
    height, width = seen.class_map_HW.shape
    shown = round(TILE * height / width)
    inset = (TILE - 3 * 4) // 4
    drawn = Image.new("RGB", (TILE, 40 + 2 * shown + 4 + (inset + 4 if windows else 0)), _WHITE)
    draw = ImageDraw.Draw(drawn)
    draw.text((0, 0), _cut(row.title, 15), fill=_INK, font=ImageFont.load_default(15))
    detail = f"{kib(seen.n_bytes):.2f} KiB, {100 * seen.agreement:.1f} % of pixels agree" if seen.n_bytes else ""
    draw.text((0, 20), detail, fill=_GREY, font=ImageFont.load_default(13))
    colours = palette_m3[seen.class_map_HW]
    for place, (array, resample) in enumerate(
        ((seen.image_uint8_HW3, Image.Resampling.LANCZOS), (colours, Image.Resampling.NEAREST))
    ):
        y = 40 + place * (shown + 4)
        drawn.paste(Image.fromarray(array).resize((TILE, shown), resample), (0, y))
        for number, window in enumerate(windows):
            frame, scale = _FRAMES[number], TILE / width
            left, top = round(window.left * scale), y + round(window.top * scale)
            right, bottom = left + round(window.width * scale) - 1, top + round(window.height * scale) - 1
            draw.rectangle((left, top, right, bottom), outline=frame, width=1)
            part = array[window.top : window.top + window.height, window.left : window.left + window.width]
            corner = ((2 * number + place) * (inset + 4), 40 + 2 * shown + 8)
            drawn.paste(Image.fromarray(np.ascontiguousarray(part)).resize((inset, inset), resample), corner)
            box = (corner[0], corner[1], corner[0] + inset - 1, corner[1] + inset - 1)
            draw.rectangle(box, outline=frame, width=2)
    return drawn


def _cut(text: str, size: int) -> str:
    font = ImageFont.load_default(size)
    while font.getlength(text) > TILE:
        text = text[:-4] + "..."
    return text


def _legend(pictures: Pictures, palette_m3: npt.NDArray[np.uint8], width: int) -> Image.Image:
    """Return a legend: the colours of the classes that occur in the maps."""
    maps = [seen.class_map_HW.reshape(-1) for row in pictures.rows for seen in row.images]
    font, x, y = ImageFont.load_default(14), MARGIN, 0
    places = []
    for index in np.unique(np.concatenate(maps)):
        entry = round(font.getlength(pictures.class_names[int(index)])) + 42
        if x + entry > width and x > MARGIN:
            x, y = MARGIN, y + 24
        places.append((int(index), x, y))
        x += entry
    drawn = Image.new("RGB", (width, y + 24), _WHITE)
    draw = ImageDraw.Draw(drawn)
    for index, left, top in places:
        red, green, blue = (int(value) for value in palette_m3[index])
        draw.rectangle((left, top + 2, left + 14, top + 16), fill=(red, green, blue), outline=_GREY)
        draw.text((left + 20, top), pictures.class_names[index], fill=_INK, font=font)
    return drawn
