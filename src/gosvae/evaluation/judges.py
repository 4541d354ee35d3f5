"""Agreement of experts of any task with their own results on the originals."""

from __future__ import annotations

from typing import Any

from gosvae.tasks.base import Meter
from gosvae.tasks.judges import Judges, Results


class Verdicts:
    """Agreement of all judges' results on the reconstructions of one codec with those on the originals."""

    def __init__(self, judges: Judges) -> None:
        self._meters: dict[str, Meter[Any]] = {name: task.meter() for name, task in judges.tasks.items()}

    def update(self, original: Results, seen: Results) -> None:
        """Count one image."""
        for name, meter in self._meters.items():
            meter.update(original[name], seen[name])

    def values(self) -> dict[str, float | None]:
        """Return the measures by the names of the judge and of the measure, such as `boxes AP50`."""
        return {
            f"{name} {column}": value
            for name, meter in self._meters.items()
            for column, value in meter.values().items()
        }
