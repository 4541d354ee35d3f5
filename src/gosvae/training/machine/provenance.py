"""Provenance of a trained model: code, versions, hardware and data."""

from __future__ import annotations

import hashlib
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
