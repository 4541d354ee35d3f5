"""Logs of a training: one JSON line for each logged step, and TensorBoard."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from gosvae.errors import WriteError
from gosvae.extras import needs
from gosvae.files import write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Records:
    """Writer of `log.jsonl` and TensorBoard files; on resume, it drops lines after the resumed step.

    Raises:
        WriteError: no space or no permission.
        MissingDependencyError: tensorboard is wanted and not installed.
    """

    def __init__(self, folder: Path, *, from_step: int, tensorboard: bool) -> None:
        self._path = folder / "log.jsonl"
        self._writer: SummaryWriter | None = None
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines() if self._path.exists() else []
            kept = "".join(f"{line}\n" for line in lines if _step_of(line) in range(from_step + 1))
            write_atomically(self._path, kept.encode())
            if tensorboard:
                with needs("train", "the log of a training"):
                    from torch.utils.tensorboard import SummaryWriter  # imported here: it is slow to load

                self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=from_step + 1)
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise WriteError(f"cannot write logs in {folder}: {error.strerror}") from None

    def write(self, step: int, stage: str, values: dict[str, float]) -> None:
        """Record the values of one step; `step` counts through all stages."""
        try:
            self._file.write(json.dumps({"step": step, "stage": stage, **values}) + "\n")
            self._file.flush()
        except OSError as error:
            raise WriteError(f"cannot write {self._path}: {error.strerror}") from None
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{stage}/{name}", value, step)

    def __enter__(self) -> Records:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # `write` has reported a full disk already
            self._file.close()
        if self._writer is not None:
            self._writer.close()


def _step_of(line: str) -> int:
    """Return the step of a logged line; -1 for a line that was cut by a crash."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1
