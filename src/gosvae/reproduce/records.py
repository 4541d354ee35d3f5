"""Folder of a row: its files, and whether they are the result of the plan's present settings."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from gosvae.errors import GosvaeError
from gosvae.evaluation.evaluation import Evaluation
from gosvae.evaluation.results import load_evaluation
from gosvae.files import write_atomically, write_json

ROWS_FOLDER = "rows"
ROW_FILE = "row.json"
SETTINGS_FILE = "settings.json"
FAILURE_FILE = "failure.json"
TRACE_FILE = "traceback.txt"
TRAIN_FOLDER = "train"
OLD = ".old-"
"""Part of the name of what was moved aside."""
SCHEMA = 1


def key_of(settings: dict[str, Any]) -> str:
    """Return the SHA-256 (hexadecimal) of all settings that a row's numbers depend on."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def trained_with(folder: Path, kept: Iterable[dict[str, Any]] = ()) -> str | None:
    """Return the perceptual distance that rows in the folder of a reproduction were trained with.

    None means that no row was trained with one, or that there are several.

    Args:
        kept: settings of kept rows, which count if there is no such row in the folder.
    """
    places = sorted((folder / ROWS_FOLDER).glob("*"))
    rows = [RowFolder(place) for place in places if OLD not in place.name]
    made = [row.settings() or {} for row in rows if row.checkpoint.exists() or row.record() is not None]
    found = _training_distances(made) or _training_distances(kept)
    return found.pop() if len(found) == 1 else None


def _training_distances(rows: Iterable[dict[str, Any]]) -> set[str]:
    """Return the perceptual distances that rows with these settings were trained with."""
    found = set()
    for settings in rows:
        stages = settings.get("recipe", {}).get("stages", ())
        if any("lpips" in stage.get("weights", {}) for stage in stages):
            found.add(str(settings.get("training_distance", settings.get("perceptual"))))
    return found


def aside_of(path: Path, ending: str = "") -> Path:
    """Return a free path beside a file or folder, to which it can be moved: NAME.old-1, or the next number."""
    numbers = (path.with_name(f"{path.name.removesuffix(ending)}{OLD}{number}{ending}") for number in count(1))
    return next(free for free in numbers if not free.exists())


@dataclass(frozen=True)
class RowRecord:
    """Record of a row that is done; it is written last and atomically, so the row is complete where it exists.

    Attributes:
        key: key of its settings; a row with another key is not done.
        steps: number of optimiser steps by stage; empty if nothing was trained.
        batch_size: number of images in a batch.
        start_steps: number of steps of the row that it started from, including those of that row's start.
        training_minutes: minutes of all stages, on the machine that made it.
        evaluation_minutes: minutes of the evaluation, on the same machine.
        precision: arithmetic of the training, `bf16` or `32`, which `auto` became on that machine; None if nothing was
            trained, and in records of version 0.2 and older.
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
    precision: Literal["bf16", "32"] | None = None

    @property
    def own_steps(self) -> int:
        """Number of steps of the row's own training."""
        return sum(self.steps.values())


@dataclass(frozen=True)
class RowFolder:
    """Folder of one row: `settings.json`, `train/`, `evaluation.json`, and `row.json` when the row is done."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Folder of the training of a row, which also holds the finished codec."""
        return self.path / TRAIN_FOLDER

    def record(self) -> RowRecord | None:
        """Return the record of a row that is done, with any settings; None if there is no readable record."""
        try:
            record: RowRecord = TypeAdapter(RowRecord).validate_json((self.path / ROW_FILE).read_bytes())
        except (OSError, ValidationError):
            return None
        return record if record.schema == SCHEMA else None

    def evaluation(self) -> Evaluation | None:
        """Return the row's evaluation; None if there is no readable one."""
        try:
            return load_evaluation(self.path)
        except GosvaeError:
            return None

    def is_done(self, key: str) -> bool:
        """Return whether the row is done with exactly these settings and its results exist."""
        record = self.record()
        return record is not None and record.key == key and self.evaluation() is not None

    def settings(self) -> dict[str, Any] | None:
        """Return the settings that the folder was begun with; None if they cannot be read."""
        try:
            tree = dict(json.loads((self.path / SETTINGS_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        tree.pop("key", None)
        return tree

    def begin(self, settings: dict[str, Any], training_key: Callable[[dict[str, Any]], str | None]) -> Path | None:
        """Write the settings; what was made with other settings is moved aside, and its new path is returned.

        A training stays where it is if its own settings are the same.

        Args:
            settings: all settings that the row's numbers depend on.
            training_key: function that returns the key of those that its training depends on, None without a training.

        Raises:
            WriteError: no space or no permission.
        """
        aside: Path | None = None
        self.forget_failure()
        before = self.settings()
        same = before is not None and key_of(before) == key_of(settings)
        if not same and self.path.exists() and any(self.path.iterdir()):
            aside = aside_of(self.path)
            key = training_key(settings)
            if before is not None and key is not None and training_key(before) == key:
                self._move_numbers(aside)
            else:
                self.path.rename(aside)
        (self.path / ROW_FILE).unlink(missing_ok=True)  # of a row that is made again, because its checkpoint is gone
        write_json(self.path / SETTINGS_FILE, {"key": key_of(settings), **settings})
        return aside

    def _move_numbers(self, aside: Path) -> None:
        """Move everything but the training to another folder; the settings, which are replaced last, are copied."""
        aside.mkdir()
        shutil.copy2(self.path / SETTINGS_FILE, aside)
        for path in sorted(self.path.iterdir()):
            if path.name not in (SETTINGS_FILE, TRAIN_FOLDER):
                path.rename(aside / path.name)

    def finish(self, record: RowRecord) -> None:
        """Write the record, which marks the row as done; may raise `WriteError`."""
        write_atomically(self.path / ROW_FILE, TypeAdapter(RowRecord).dump_json(record, indent=1) + b"\n")

    def fail(self, reason: str) -> None:
        """Write the reason why the row could not be made; may raise `WriteError`."""
        write_json(self.path / FAILURE_FILE, {"reason": reason})

    def forget_failure(self) -> None:
        """Remove the reason of a failed attempt."""
        for name in (FAILURE_FILE, TRACE_FILE):
            (self.path / name).unlink(missing_ok=True)

    def failure(self) -> str | None:
        """Return the reason why the last attempt failed, or None."""
        try:
            return str(json.loads((self.path / FAILURE_FILE).read_text(encoding="utf-8"))["reason"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def log(self) -> list[dict[str, Any]]:
        """Return the logged steps of the training, each with `step`, `stage` and values; empty without a training."""
        lines = []
        try:
            text = (self.checkpoint / "log.jsonl").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        for line in text.splitlines():
            try:
                lines.append(dict(json.loads(line)))
            except (ValueError, TypeError):  # a line that was cut by a crash
                continue
        return lines

    def training_minutes(self) -> float:
        """Return the minutes of all stages over all sessions, from the log."""
        last: dict[str, float] = {}
        for line in self.log():
            last[str(line.get("stage"))] = float(line.get("minutes", 0.0))
        return sum(last.values())
