"""Where a trained model comes from."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from gosvae.datasets.base import Dataset
from gosvae.provenance import hardware, revision, versions


def data_hash(dataset: Dataset, most: int = 16) -> str:
    """SHA-256 over the count and up to `most` evenly spaced samples (names, pixels, labels) of a dataset."""
    digest = hashlib.sha256(f"{dataset.name} {len(dataset)}".encode())
    for i in range(0, len(dataset), max(1, -(-len(dataset) // most))):
        sample = dataset[i]
        digest.update(sample.name.encode())
        digest.update(sample.image_uint8_HW3.tobytes())
        if sample.labels_uint8_HW is not None:
            digest.update(sample.labels_uint8_HW.tobytes())
    return digest.hexdigest()


def provenance(dataset: Dataset, **more: Any) -> dict[str, Any]:
    """The provenance of a training on a dataset; `more` adds steps, minutes, metrics."""
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
