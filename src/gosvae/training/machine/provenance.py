"""Provenance of a trained model: code, versions, hardware and data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gosvae.datasets.base import Dataset
from gosvae.provenance import hardware, revision, versions


def data_hash(dataset: Dataset, most: int = 16) -> str:
    """Return the SHA-256 of the number of samples and of up to `most` evenly spaced ones (names, pixels, labels)."""
    digest = hashlib.sha256(f"{dataset.name} {len(dataset)}".encode())
    for i in range(0, len(dataset), max(1, -(-len(dataset) // most))):
        sample = dataset[i]
        digest.update(sample.name.encode())
        digest.update(sample.image_uint8_HW3.tobytes())
        if sample.labels_uint8_HW is not None:
            digest.update(sample.labels_uint8_HW.tobytes())
    return digest.hexdigest()


_OF_EARLIER_RUNS = ("stages", "minutes_of_stage", "hardware", "dataset", "images", "revision", "date", "init")


def earlier_runs(start: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the runs that made a codec, the first one first, as far as its provenance has them.

    Args:
        start: provenance of the codec that a training starts from.

    Returns:
        A mapping for each run, with the name of its recipe and those values of its provenance that say how long, on
        what and with what it was trained.
    """
    recipe = start.get("recipe")
    latest = {"recipe": recipe.get("name") if isinstance(recipe, dict) else None}
    latest |= {key: start[key] for key in _OF_EARLIER_RUNS if key in start}
    return [*start.get("earlier_runs", []), latest]


def provenance(dataset: Dataset, **more: Any) -> dict[str, Any]:
    """Return the provenance of a training on a dataset, extended by `more`, such as recipe and minutes."""
    return {
        "revision": revision(),
        "versions": versions(),
        "hardware": hardware(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": dataset.name,
        "images": len(dataset),
        "data_sha256": data_hash(dataset),
        **more,
    }
