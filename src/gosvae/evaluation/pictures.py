"""Picture of an evaluation: originals and reconstructions, each above the class map that the expert sees on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from gosvae.datasets.palettes import class_palette
from gosvae.errors import ConfigError
from gosvae.evaluation.evaluation import Evaluation, KeptImage, Reconstruction
from gosvae.tensors import ImageArray
from gosvae.units import kib

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND = (255, 255, 255)
INK = (20, 20, 20)
GREY = (95, 95, 95)
_MARGIN = 16
_GAP = 8
_MAX_ASPECT = 1.5
"""Largest ratio of height to width of a tile; taller images are made narrower."""


@dataclass(frozen=True)
class _Tile:
    """One cell of the grid: two lines of text, an image, and pictures of what is seen on it."""

    title: str
    detail: str
    image_uint8_HW3: ImageArray
    seen: tuple[ImageArray, ...]


def draw_pictures(evaluation: Evaluation, path: Path, *, tile_width: int = 384, columns: int = 4) -> None:
    """Write the kept images of an evaluation as one PNG.

    For each image, the original and its reconstructions stand side by side in the order of the codecs. Below each are
    the expert's class map in colours and what the judges see; above each are the KiB (1024 bytes) and the share of
    pixels where the expert sees the same class as on the original. A legend names the colours that occur, and a line
    names the judges in the order of their pictures.

    Args:
        evaluation: evaluation with kept images.
        path: path of the PNG.
        tile_width: width in pixels of an image in the picture; very tall images are narrower.
        columns: largest number of images side by side.

    Raises:
        ConfigError: no image was kept (`evaluate(..., keep_images=[0])` keeps the first).
    """
    if not evaluation.kept:
        raise ConfigError("no image was kept for pictures: evaluate with keep_images, for example keep_images=[0]")
    palette_m3 = class_palette(evaluation.provenance.class_names)
    count = 1 + len(evaluation.kept[0].reconstructions)
    columns = math.ceil(count / math.ceil(count / columns))  # 5 tiles with at most 4 in a line are 3 and 2
    width = 2 * _MARGIN + columns * tile_width + (columns - 1) * _GAP
    font_height = max(13, tile_width // 22)
    parts: list[Image.Image] = []
    for kept in evaluation.kept:
        tiles = [_drawn_tile(tile, tile_width, font_height) for tile in _tiles(kept, palette_m3)]
        parts += [_beside(tiles[start : start + columns], width) for start in range(0, len(tiles), columns)]
    if evaluation.kept[0].class_map_HW is not None:
        parts.append(_legend(evaluation, palette_m3, width, font_height))
    if evaluation.kept[0].drawn:
        parts.append(_order(evaluation.kept[0], width, font_height))
    page = Image.new("RGB", (width, sum(part.height + _MARGIN for part in parts) + _MARGIN), BACKGROUND)
    y = _MARGIN
    for part in parts:
        page.paste(part, (0, y))
        y += part.height + _MARGIN
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, format="PNG", optimize=True)


def _tiles(kept: KeptImage, palette_m3: npt.NDArray[np.uint8]) -> list[_Tile]:
    def seen(one: KeptImage | Reconstruction) -> tuple[ImageArray, ...]:
        maps = () if one.class_map_HW is None else (palette_m3[one.class_map_HW],)
        return (*maps, *one.drawn.values())

    tiles = [_Tile("original", kept.name, kept.image_uint8_HW3, seen(kept))]
    for made in kept.reconstructions:
        detail = f"{kib(made.row.total_bytes):.2f} KiB"
        if made.row.agreement_accuracy is not None:
            detail += f", {100 * made.row.agreement_accuracy:.1f} % of pixels agree"
        if made.row.over_budget:
            detail += ", over budget"
        tiles.append(_Tile(made.label, detail, made.image_uint8_HW3, seen(made)))
    return tiles


def _drawn_tile(tile: _Tile, width: int, font_height: int) -> Image.Image:
    true_height, true_width = tile.image_uint8_HW3.shape[:2]
    scale = min(width / true_width, _MAX_ASPECT * width / true_height)
    height, picture_width = max(1, round(scale * true_height)), max(1, round(scale * true_width))
    text_height = round(2.7 * font_height)
    drawn = Image.new("RGB", (width, text_height + (1 + len(tile.seen)) * (height + 2) - 2), BACKGROUND)
    draw = ImageDraw.Draw(drawn)
    title_font = plain_font(round(1.15 * font_height))
    draw.text((0, 0), fitted(tile.title, title_font, width), fill=INK, font=title_font)
    font = plain_font(font_height)
    draw.text((0, round(1.35 * font_height)), fitted(tile.detail, font, width), fill=GREY, font=font)
    picture = Image.fromarray(np.ascontiguousarray(tile.image_uint8_HW3))
    drawn.paste(picture.resize((picture_width, height), Image.Resampling.LANCZOS), (0, text_height))
    for number, seen_HW3 in enumerate(tile.seen, start=1):
        below = Image.fromarray(seen_HW3).resize((picture_width, height), Image.Resampling.NEAREST)
        drawn.paste(below, (0, text_height + number * (height + 2)))
    return drawn


def _beside(tiles: Sequence[Image.Image], width: int) -> Image.Image:
    line = Image.new("RGB", (width, max(tile.height for tile in tiles)), BACKGROUND)
    for column, tile in enumerate(tiles):
        line.paste(tile, (_MARGIN + column * (tile.width + _GAP), 0))
    return line


def _legend(evaluation: Evaluation, palette_m3: npt.NDArray[np.uint8], width: int, font_height: int) -> Image.Image:
    """Return the legend: colours of the classes that occur, and a line that explains the text above the images."""
    maps = [kept.class_map_HW for kept in evaluation.kept]
    maps += [made.class_map_HW for kept in evaluation.kept for made in kept.reconstructions]
    occurring = np.unique(np.concatenate([class_map.reshape(-1) for class_map in maps if class_map is not None]))
    font = plain_font(font_height)
    line_height = round(1.6 * font_height)
    entries: list[tuple[int, int, int]] = []
    x, y = _MARGIN, 0
    for index in occurring:
        entry_width = round(font.getlength(evaluation.provenance.class_names[index])) + 3 * font_height
        if x + entry_width > width and x > _MARGIN:
            x, y = _MARGIN, y + line_height
        entries.append((int(index), x, y))
        x += entry_width
    note = f"Expert: {evaluation.provenance.expert}. Pixels agree where it sees the same class as on the original."
    drawn = Image.new("RGB", (width, y + 2 * line_height), BACKGROUND)
    draw = ImageDraw.Draw(drawn)
    for index, left, top in entries:
        red, green, blue = (int(value) for value in palette_m3[index])
        draw.rectangle((left, top, left + font_height, top + font_height), fill=(red, green, blue), outline=GREY)
        name = evaluation.provenance.class_names[index]
        draw.text((left + round(1.4 * font_height), top), name, fill=INK, font=font)
    draw.text((_MARGIN, y + line_height), fitted(note, font, width - 2 * _MARGIN), fill=GREY, font=font)
    return drawn


def _order(kept: KeptImage, width: int, font_height: int) -> Image.Image:
    """Return a line that names the pictures below an image, in their order."""
    names = [*([] if kept.class_map_HW is None else ["class map"]), *kept.drawn]
    font = plain_font(font_height)
    line = Image.new("RGB", (width, round(1.6 * font_height)), BACKGROUND)
    text = fitted(f"Below each image: {', '.join(names)}", font, width - 2 * _MARGIN)
    ImageDraw.Draw(line).text((_MARGIN, 0), text, fill=GREY, font=font)
    return line


def plain_font(height: int) -> Font:
    """Return Pillow's own font, so that pictures are the same on every machine."""
    return ImageFont.load_default(height)


def fitted(text: str, font: Font, width: int) -> str:
    """Return the text, cut with an ellipsis if it is too wide."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
