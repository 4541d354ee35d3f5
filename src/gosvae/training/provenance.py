"""Where a result comes from: code revision, versions, hardware, data."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gosvae.datasets.base import Dataset


def hardware() -> str:
    """Processor (or accelerator) and its cores, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{torch.get_num_threads()} threads of {model}"


def revision() -> str | None:
    """Git revision of the source tree that this code runs from, with `-dirty` for local changes; None outside one."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in ("gosvae", "torch", "numpy", "constriction", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def data_hash(dataset: Dataset, most: int = 16) -> str:
    """SHA-256 over the count and up to `most` evenly spaced samples (names, pixels, labels) of a dataset."""
    digest = hashlib.sha256(f"{dataset.name} {len(dataset)}".encode())
    for i in range(0, len(dataset), max(1, len(dataset) // most)):
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
