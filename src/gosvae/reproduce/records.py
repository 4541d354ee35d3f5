"""What a row leaves behind in its folder, and whether that is what the plan asks for now."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from gosvae.errors import GosvaeError
from gosvae.evaluation.results import load_evaluation
from gosvae.evaluation.rows import Evaluation
from gosvae.files import write_atomically, write_json

ROW_FILE = "row.json"
SETTINGS_FILE = "settings.json"
FAILURE_FILE = "failure.json"
TRACE_FILE = "traceback.txt"
TRAIN_FOLDER = "train"
SCHEMA = 1


def key_of(settings: dict[str, Any]) -> str:
    """SHA-256 (hexadecimal) of everything that a row's numbers follow from."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class RowRecord:
    """A row that is done: written last, and at once, so that where it stands everything else does.

    Attributes:
        key: of its settings; a row with another key is not done.
        steps: optimiser steps by stage; empty where nothing was trained.
        batch_size: images a step. start_steps: steps of the row that it started from, and of that row's start.
        training_minutes: of the stages, on the machine that made it; evaluation_minutes the same.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    schema: int
    row_id: str
    title: str
    key: str
    seed: int | None
    steps: dict[str, int] = field(default_factory=dict)
    batch_size: int | None = None
    start_steps: int = 0
    training_minutes: float = 0.0
    evaluation_minutes: float = 0.0

    @property
    def own_steps(self) -> int:
        """Steps of the row's own training."""
        return sum(self.steps.values())


@dataclass(frozen=True)
class RowFolder:
    """One row's folder: `settings.json`, `train/`, `evaluation.json`, and `row.json` when it is done."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The finished codec of a trained row, and its training."""
        return self.path / TRAIN_FOLDER

    def record(self) -> RowRecord | None:
        """The record of a row that is done, whatever its settings; None where there is none that can be read."""
        try:
            record: RowRecord = TypeAdapter(RowRecord).validate_json((self.path / ROW_FILE).read_bytes())
        except (OSError, ValidationError):
            return None
        return record if record.schema == SCHEMA else None

    def evaluation(self) -> Evaluation | None:
        """The row's evaluation; None where there is none that can be read."""
        try:
            return load_evaluation(self.path)
        except GosvaeError:
            return None

    def is_done(self, key: str) -> bool:
        """Whether the row is done with just these settings, and its results are there."""
        record = self.record()
        return record is not None and record.key == key and self.evaluation() is not None

    def settings_key(self) -> str | None:
        """Key of the settings that the folder was begun with."""
        try:
            tree = json.loads((self.path / SETTINGS_FILE).read_text(encoding="utf-8"))
            return str(tree["key"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, settings: dict[str, Any]) -> Path | None:
        """Write the settings; what was begun with others is moved aside, and where to is returned.

        Raises:
            WriteError: no space or no permission.
        """
        key = key_of(settings)
        aside: Path | None = None
        self.forget_failure()
        if self.path.exists() and any(self.path.iterdir()) and self.settings_key() != key:
            numbers = (self.path.with_name(f"{self.path.name}.old-{number}") for number in count(1))
            aside = next(path for path in numbers if not path.exists())
            self.path.rename(aside)
        write_json(self.path / SETTINGS_FILE, {"key": key, **settings})
        return aside

    def finish(self, record: RowRecord) -> None:
        """Write the record, which makes the row done; raises `WriteError`."""
        write_atomically(self.path / ROW_FILE, TypeAdapter(RowRecord).dump_json(record, indent=1) + b"\n")

    def fail(self, reason: str) -> None:
        """Keep why the row could not be made; raises `WriteError`."""
        write_json(self.path / FAILURE_FILE, {"reason": reason})

    def forget_failure(self) -> None:
        """Remove what a failed attempt left."""
        for name in (FAILURE_FILE, TRACE_FILE):
            (self.path / name).unlink(missing_ok=True)

    def failure(self) -> str | None:
        """Why the last attempt failed, or None."""
        try:
            return str(json.loads((self.path / FAILURE_FILE).read_text(encoding="utf-8"))["reason"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def log(self) -> list[dict[str, Any]]:
        """Logged steps of the training, each a mapping with `step`, `stage` and values; empty without a training."""
        lines = []
        try:
            text = (self.checkpoint / "log.jsonl").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        for line in text.splitlines():
            try:
                lines.append(dict(json.loads(line)))
            except (ValueError, TypeError):  # cut by a crash
                continue
        return lines

    def training_minutes(self) -> float:
        """Minutes of all stages over all sessions, from the log."""
        last: dict[str, float] = {}
        for line in self.log():
            last[str(line.get("stage"))] = float(line.get("minutes", 0.0))
        return sum(last.values())
