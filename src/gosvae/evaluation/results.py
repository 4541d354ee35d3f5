"""Files of results: a complete `evaluation.json`, and a file for each codec that CompressAI's plot tool reads."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from gosvae.errors import ConfigError, WriteError
from gosvae.evaluation.evaluation import Evaluation
from gosvae.evaluation.rows import FID_NETWORK, ImageRow, Provenance, Row
from gosvae.experts.base import Expert, TaskExpert
from gosvae.files import write_atomically, write_json
from gosvae.provenance import hardware, revision, versions
from gosvae.walk import printable

log = logging.getLogger(__name__)
SCHEMA = 1
EVALUATION_FILE = "evaluation.json"
IMAGES_FILE = "images.jsonl"
"""Name of the file that gets the rows of every image as soon as it is measured, one JSON object a line."""


@dataclass(frozen=True)
class _Saved:
    """Content of `evaluation.json`."""

    schema: int
    provenance: Provenance
    rows: tuple[Row, ...]
    images: tuple[ImageRow, ...]


def save_evaluation(evaluation: Evaluation, folder: str | Path) -> list[Path]:
    """Write `evaluation.json` and one CompressAI result file for each curve; return their paths in this order.

    An infinite PSNR (of an exact image) is the string "Infinity" in `evaluation.json` and null in the other files.

    Raises:
        WriteError: the folder cannot be written; each file is either the old or the new one.
    """
    folder = Path(folder)
    saved = _Saved(SCHEMA, evaluation.provenance, evaluation.rows, evaluation.images)
    paths = [folder / EVALUATION_FILE]
    write_atomically(paths[0], TypeAdapter(_Saved).dump_json(saved, indent=1) + b"\n")
    for name, rows in evaluation.curves().items():
        stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "codec"
        path, number = folder / f"{stem}.json", 2
        while path in paths:
            path, number = folder / f"{stem}-{number}.json", number + 1
        write_json(path, compressai_result(name, rows, evaluation.provenance))
        paths.append(path)
    return paths


class ImageLog:
    """File `images.jsonl` of a folder, which gets the rows of each image when it is measured.

    After an error or Ctrl-C it holds all that was measured before. A complete evaluation has the same rows in
    `evaluation.json`, so `done` removes the file.

    Args:
        folder: folder of the results, which is made.

    Raises:
        WriteError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / IMAGES_FILE
        self._count = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb")
        except OSError as error:
            raise WriteError(f"cannot write results in {folder}: {error.strerror}", argument="out") from None

    def add(self, rows: Sequence[ImageRow]) -> None:
        """Append rows and hand them to the operating system.

        Raises:
            WriteError: no space or no permission.
        """
        try:
            for row in rows:
                self._file.write(TypeAdapter(ImageRow).dump_json(row) + b"\n")
            self._file.flush()
            self._count += 1
        except OSError as error:
            raise WriteError(f"cannot write {self.path}: {error.strerror}") from None

    def done(self) -> None:
        """Remove the file: its rows stand in `evaluation.json`."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> ImageLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._count:
            log.warning("the rows of the %d images that were measured are in %s", self._count, self.path)
        with contextlib.suppress(OSError):  # `add` has reported a full disk already
            self._file.close()


def load_evaluation(path: str | Path) -> Evaluation:
    """Read an evaluation that `save_evaluation` wrote, from the folder or its `evaluation.json`, without pictures.

    Raises:
        ConfigError: the file is missing, is not an evaluation, or has another schema version.
    """
    file = Path(path) / EVALUATION_FILE if Path(path).is_dir() else Path(path)
    try:
        saved = TypeAdapter(_Saved).validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}; expected what `gosvae evaluate` wrote") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{file} is not an evaluation: {where or 'the whole'}: {first['msg']}") from None
    if saved.schema != SCHEMA:
        raise ConfigError(f"{file} has schema version {saved.schema}, this version of gosvae reads {SCHEMA}")
    return Evaluation(saved.provenance, saved.rows, saved.images)


def compressai_result(name: str, rows: Sequence[Row], provenance: Provenance) -> dict[str, Any]:
    """Return the tree that CompressAI's plot tool reads: `name`, `description` and `results`, with lists by rate point.

    `bpp` counts complete files; times are in seconds, as in CompressAI. Quantities that no point has are left out.
    """

    def seconds(milliseconds: float | None) -> float | None:
        return None if milliseconds is None else milliseconds / 1000.0

    columns: dict[str, Callable[[Row], float | None]] = {
        "bpp": lambda row: row.bpp,
        "psnr-rgb": lambda row: row.psnr_db,
        "mse-rgb": lambda row: row.mse,
        "miou": lambda row: row.miou,
        "pixel-accuracy": lambda row: row.pixel_accuracy,
        "agreement-miou": lambda row: row.agreement_miou,
        "agreement-accuracy": lambda row: row.agreement_accuracy,
        f"{(provenance.perceptual or 'lpips').lower()}": lambda row: row.lpips,
        "fid": lambda row: row.fid,
        "frechet-distance": lambda row: None if row.frechet_network == FID_NETWORK else row.frechet_distance,
        "total-bytes": lambda row: row.total_bytes,
        "payload-bytes": lambda row: row.payload_bytes,
        "zero-order-bytes": lambda row: row.zero_order_bytes,
        "encoding_time": lambda row: seconds(row.encode_ms),
        "decoding_time": lambda row: seconds(row.decode_ms),
    }
    for name in dict.fromkeys(name for row in rows for name in row.tasks):
        columns[name.replace(" ", "-")] = lambda row, name=name: row.tasks.get(name)  # type: ignore[misc]
    results: dict[str, list[float | None]] = {}
    for key, value_of in columns.items():
        values = [value_of(row) for row in rows]
        finite = [value if value is not None and math.isfinite(value) else None for value in values]
        if any(value is not None for value in finite):
            results[key] = finite
    description = (
        f"{rows[0].codec} on {provenance.dataset} ({provenance.image_count} images, {provenance.geometry}), "
        f"task: {provenance.expert}; bpp of complete files, batch 1, {provenance.hardware}"
    )
    if rows[0].frechet_network is not None:
        description += f"; Fréchet distance on {rows[0].frechet_network}, N = {rows[0].image_count}"
    return {"name": name, "description": description, "results": results}


def gather_provenance(
    dataset_name: str,
    expert: Expert | None,
    judges: Mapping[str, TaskExpert],
    sizes: Sequence[tuple[int, int]],
    perceptual: str | None,
) -> Provenance:
    """Return all that is needed to repeat an evaluation. `sizes` are (height, width) of all images."""
    smallest, largest = min(sizes), max(sizes)
    geometry = f"{smallest[0]}x{smallest[1]}"
    return Provenance(
        dataset=dataset_name,
        image_count=len(sizes),
        geometry=geometry if smallest == largest else f"{geometry} to {largest[0]}x{largest[1]}",
        class_names=() if expert is None else expert.info.class_names,
        expert="none" if expert is None else expert.info.name,
        expert_fingerprint="" if expert is None else expert.fingerprint(),
        judges={f"{name} ({judge.task})": judge.fingerprint() for name, judge in judges.items()},
        perceptual=perceptual,
        versions=versions(),
        revision=revision(),
        hardware=hardware(),
        threads=torch.get_num_threads(),
        command=printable(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        date_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )
