"""Film of an evaluation of videos: the original and reconstructions side by side, each above its class map.

Axis legend: H and W pixels, m classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from gosvae.datasets.palettes import class_palette
from gosvae.errors import ConfigError
from gosvae.evaluation.evaluation import ClassMapArray, Evaluation
from gosvae.evaluation.pictures import BACKGROUND, GREY, INK, fitted, plain_font
from gosvae.extras import needs
from gosvae.files import write_atomically
from gosvae.tensors import ImageArray

_GAP = 4
_TEXT = 34
_CLASS_SHARE = 0.6
"""Share of the colour of a class in the picture under it."""


@dataclass(frozen=True)
class Column:
    """A column of a film.

    Attributes:
        title, detail: lines above the pictures.
        label: label of a codec of the evaluation; None shows the original.
    """

    title: str
    detail: str
    label: str | None = None


def film_frames(evaluation: Evaluation, columns: Sequence[Column], *, tile_width: int = 320) -> list[ImageArray]:
    """Return a picture, uint8 (H, W, 3), for every kept frame of an evaluation.

    Below each picture is the same picture under the colours of the classes that the expert sees on it.

    Args:
        evaluation: evaluation with kept frames.
        columns: columns from left to right.
        tile_width: width in pixels of a picture.

    Raises:
        ConfigError: no frames were kept, or an unknown label.
    """
    if not evaluation.kept:
        raise ConfigError("no frames were kept for a film: evaluate with keep_frames")
    palette_m3 = class_palette(evaluation.provenance.class_names)
    frames = []
    for kept in evaluation.kept:
        of_label = {made.label: (made.image_uint8_HW3, made.class_map_HW) for made in kept.reconstructions}
        tiles = []
        for column in columns:
            if column.label is not None and column.label not in of_label:
                raise ConfigError(f"the evaluation has no frames of {column.label!r}")
            image, class_map = of_label.get(column.label or "", (kept.image_uint8_HW3, kept.class_map_HW))
            assert class_map is not None  # a video is always evaluated with a segmentation network
            tiles.append(_tile(column, image, class_map, palette_m3, tile_width))
        width = sum(tile.width for tile in tiles) + _GAP * (len(tiles) - 1)
        page = Image.new("RGB", (width + width % 2, tiles[0].height + tiles[0].height % 2), BACKGROUND)
        for place, tile in enumerate(tiles):
            page.paste(tile, (place * (tile_width + _GAP), 0))
        frames.append(np.asarray(page))
    return frames


def _tile(
    column: Column,
    image_uint8_HW3: ImageArray,
    class_map_HW: ClassMapArray,
    palette_m3: npt.NDArray[np.uint8],
    width: int,
) -> Image.Image:
    height = round(width * image_uint8_HW3.shape[0] / image_uint8_HW3.shape[1])
    picture = Image.fromarray(np.ascontiguousarray(image_uint8_HW3)).resize((width, height), Image.Resampling.LANCZOS)
    classes = Image.fromarray(palette_m3[class_map_HW]).resize((width, height), Image.Resampling.NEAREST)
    tile = Image.new("RGB", (width, _TEXT + 2 * height + _GAP), BACKGROUND)
    draw = ImageDraw.Draw(tile)
    for y, text, size, ink in ((0, column.title, 15, INK), (18, column.detail, 12, GREY)):
        font = plain_font(size)
        draw.text((2, y), fitted(text, font, width - 4), fill=ink, font=font)
    tile.paste(picture, (0, _TEXT))
    tile.paste(Image.blend(picture, classes, _CLASS_SHARE), (0, _TEXT + height + _GAP))
    return tile


def write_film(path: Path, frames: Sequence[ImageArray], *, frames_per_second: float) -> None:
    """Write pictures of one size, with even sides, as an animated WebP (`.webp`) or as H.264 in MP4 (`.mp4`).

    Raises:
        ConfigError: another ending.
        MissingDependencyError: an MP4 needs PyAV, which is not installed.
        WriteError: the file cannot be written.
    """
    buffer = BytesIO()
    if path.suffix.lower() == ".webp":
        first, *others = (Image.fromarray(frame) for frame in frames)
        first.save(
            buffer,
            "WEBP",
            save_all=True,
            append_images=others,
            duration=round(1000 / frames_per_second),
            loop=0,
            quality=70,
            method=4,
        )
    elif path.suffix.lower() == ".mp4":
        _write_mp4(buffer, frames, frames_per_second)
    else:
        raise ConfigError(f"cannot write a film as {path.name}: take .webp or .mp4")
    write_atomically(path, buffer.getvalue())


def _write_mp4(buffer: BytesIO, frames: Sequence[ImageArray], frames_per_second: float) -> None:
    with needs("video", "an MP4 film"):
        import av

    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(frames_per_second).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        stream.options = {"crf": "20"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
