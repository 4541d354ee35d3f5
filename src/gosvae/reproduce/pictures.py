"""Reconstructions for Fig. 2: made once for each row, kept as PNG files in the row's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gosvae.datasets.base import Dataset
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.errors import GosvaeError
from gosvae.evaluation.evaluation import KeptImage
from gosvae.evaluation.protocol import CodecEntry, evaluate
from gosvae.files import json_bytes, write_together
from gosvae.reproduce.plan import RowPlan
from gosvae.reproduce.runner import Runner
from gosvae.tensors import ImageArray
from gosvae.units import bytes_from_kib

FOLDER = "pictures"
INDEX_FILE = "pictures.json"

MapArray = npt.NDArray[np.uint8]
"""Class of every pixel, (H, W)."""


@dataclass(frozen=True)
class Seen:
    """Image with the expert's class map of it.

    Attributes:
        n_bytes: number of bytes of the file; 0 for an original.
        agreement: share of pixels with the class that the expert sees on the original.
    """

    image_uint8_HW3: ImageArray
    class_map_HW: MapArray
    n_bytes: int = 0
    agreement: float = 1.0


@dataclass(frozen=True)
class PictureRow:
    """Images of one system, in the order of the originals."""

    title: str
    images: tuple[Seen, ...]


@dataclass(frozen=True)
class Pictures:
    """Pictures of Fig. 2; the first row has the originals. Without rows, nothing could be made."""

    source: str
    class_names: tuple[str, ...]
    rows: tuple[PictureRow, ...]
    remark: str = ""


def make_pictures(runner: Runner, rows: Sequence[RowPlan], data: str | None, count: int) -> Pictures:
    """Return the rows' pictures; those that do not exist yet are made.

    Args:
        rows: rows that are done.
        data: name of the images; None takes those that are measured.
        count: number of images, evenly spaced.

    Raises:
        DatasetError: the images cannot be loaded.
        WriteError: no space or no permission.
    """
    world = runner.world
    images: Dataset = world.test_images
    if data is not None:
        images = load_prepared(data, default_split="val", geometry=world.job.geometry)
    images = EvenlySpaced(images, count)
    source = f"{images.name}, {len(images)} images"
    class_names = world.expert.info.class_names if rows else ()
    shown, troubles = [], []
    originals: tuple[Seen, ...] = ()
    for row in rows:
        try:
            originals, made = _row_pictures(runner, row, images)
        except GosvaeError as error:
            troubles.append(f"{row.title} is missing: {error}.")
            continue
        shown.append(PictureRow(row.title, made))
    if shown:
        shown.insert(0, PictureRow("original", originals))
    if data is not None and images.name != world.train_images.name:
        troubles.insert(0, f"The systems were trained on {world.train_images.name}, not on images like these.")
    return Pictures(source, class_names, tuple(shown), " ".join(troubles))


def _row_pictures(runner: Runner, row: RowPlan, images: Dataset) -> tuple[tuple[Seen, ...], tuple[Seen, ...]]:
    """Return originals and reconstructions of one row."""
    key = _key(runner.keys()[row.row_id], images)
    folder = runner.folder_of(row.row_id).path / FOLDER / key[:12]
    index = _index(folder)
    if index is None:
        budget: int | list[int] | None = None
        if row.budget_kib is not None:
            budget = bytes_from_kib(row.budget_kib)
        if row.match is not None:
            reference = next(other for other in runner.rows if other.row_id == row.match)
            budget = [seen.n_bytes for seen in _row_pictures(runner, reference, images)[1]]
        codec = runner.world.codec(row, lambda row_id: runner.folder_of(row_id).checkpoint)
        evaluation = evaluate(
            [CodecEntry(row.row_id, codec, budget_bytes=budget)],
            images,
            runner.world.expert,
            use_labels=False,
            keep_images=range(len(images)),
            progress=False,
        )
        index = _write(folder, evaluation.kept)
    return (
        tuple(_read(folder, f"{i}-original", 0, 1.0) for i in range(len(index))),
        tuple(_read(folder, f"{i}", line["bytes"], line["agreement"]) for i, line in enumerate(index)),
    )


def _key(row_key: str, images: Dataset) -> str:
    digest = hashlib.sha256(row_key.encode())
    for i in range(len(images)):
        digest.update(images[i].image_uint8_HW3.tobytes())
    return digest.hexdigest()


def _index(folder: Path) -> list[dict[str, Any]] | None:
    """Return the index of a folder, which is written last, when all its pictures exist."""
    try:
        lines: list[dict[str, Any]] = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return lines


def _png(array: npt.NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _write(folder: Path, kept: Sequence[KeptImage]) -> list[dict[str, Any]]:
    files, index = {}, []
    for i, image in enumerate(kept):
        made = image.reconstructions[0]
        assert image.class_map_HW is not None  # its expert segments
        assert made.class_map_HW is not None
        files[folder / f"{i}-original.png"] = _png(image.image_uint8_HW3)
        files[folder / f"{i}-original-map.png"] = _png(image.class_map_HW.astype(np.uint8))
        files[folder / f"{i}.png"] = _png(made.image_uint8_HW3)
        files[folder / f"{i}-map.png"] = _png(made.class_map_HW.astype(np.uint8))
        line = {"image": image.name, "bytes": made.row.total_bytes, "agreement": made.row.agreement_accuracy}
        index.append(line)
    write_together({**files, folder / INDEX_FILE: json_bytes(index)})  # the index is last
    return index


def _read(folder: Path, stem: str, n_bytes: int, agreement: float) -> Seen:
    with Image.open(folder / f"{stem}.png") as image, Image.open(folder / f"{stem}-map.png") as class_map:
        return Seen(np.asarray(image.convert("RGB")), np.asarray(class_map), n_bytes, agreement)
