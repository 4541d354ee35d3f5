"""Allocation of bytes to the two layers of a stream. The figures come from measurements in `docs/rate-task.md`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gosvae.codecs.slices import Purpose
from gosvae.entropy.latent_network import LEVELS

REFERENCE_PIXELS = 256 * 512
"""Number of pixels of the training images, which sizes in KiB are for; other images count by their pixels."""
TASK_ONLY_KIB = 3.0
"""Budget below which all is for the task layer: from here on, AV1 serves the imitated expert about as well, and other
networks better."""
TASK_LEVEL, LEAST_KIB = 48, 1.6
"""Level of the task layer of a stream of two layers, about 0.6 KiB, and the smallest budget of such a stream."""
DETAIL_QUALITY = 60
"""Quality of the detail layer, where neither a budget nor a level is given."""
QUALITY_STEP = 20
"""Difference of quality between slices of the detail layer, where no budget is given; it doubles the bytes."""
_FIRST_QUALITY, _LAST_QUALITY = 22, 85
"""Qualities of the detail layer at the first level that has one, and at the last level."""


@dataclass(frozen=True)
class Rate:
    """Settings of both layers.

    Attributes:
        task_level: level of the task layer, 0..255; None means that there is none.
        quality: quality of the detail layer at full size, 1..100; None means that there is none.
    """

    task_level: int | None
    quality: int | None = None


Layers = Literal["task", "detail", "both"]


def layers_within(budget_bytes: int, pixels: int, purpose: Purpose) -> Layers:
    """Return the layers that a budget is spent on.

    Args:
        budget_bytes: number of bytes of the stream.
        pixels: number of pixels of the image.
        purpose: `machine`, `people` or `both`.
    """
    size_kib = budget_bytes / 1024 * REFERENCE_PIXELS / pixels
    if purpose == "people":
        return "detail"
    if purpose == "both":
        return "both" if size_kib >= LEAST_KIB else "task"
    return "task" if size_kib < TASK_ONLY_KIB else "detail"


def rate_of_level(level: int, purpose: Purpose) -> Rate:
    """Return the settings of a level, 0..255.

    For machines the first half of the levels has a task layer alone, of the same level, and the second a detail layer
    alone. For people all levels have a detail layer, and for both purposes a task layer too.
    """
    if purpose == "machine":
        half = LEVELS // 2
        if level < half:
            return Rate(level)
        rise = (level - half) / (half - 1)
        return Rate(None, round(_FIRST_QUALITY + rise * (_LAST_QUALITY - _FIRST_QUALITY)))
    quality = round(1 + level / (LEVELS - 1) * (_LAST_QUALITY - 1))
    return Rate(TASK_LEVEL if purpose == "both" else None, quality)
