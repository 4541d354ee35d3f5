"""Lines of progress during the training of a row, where no bar is shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from gosvae.reproduce.records import RowFolder

EVERY_SECONDS = 30.0


class TrainingNews:
    """Context in which a thread reads the training's log and reports step, steps a second and remaining time.

    Args:
        head: text that each line begins with.
        steps: number of steps of the whole training.
        say: function that takes each line.
        quiet: whether to report nothing, because a bar is shown.
    """

    def __init__(
        self,
        folder: RowFolder,
        head: str,
        steps: int,
        say: Callable[[str], None],
        *,
        quiet: bool = False,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._folder, self._head, self._steps, self._say = folder, head, steps, say
        self._every, self._quiet = every_seconds, quiet
        self._ended = threading.Event()
        self._first, self._started_s = 0, 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _step(self) -> int:
        log = self._folder.log()
        return int(log[-1].get("step", 0)) if log else 0

    def _watch(self) -> None:
        while not self._ended.wait(self._every):
            step = self._step()
            pace = (step - self._first) / (time.monotonic() - self._started_s)
            if pace > 0:
                left = (self._steps - step) / pace / 60.0
                self._say(f"{self._head}: step {step} of {self._steps}, {pace:.2f} steps/s, {left:.1f} min left")

    def __enter__(self) -> TrainingNews:
        if not self._quiet:
            # The log is read before the training takes a step, because the thread may start too late for that.
            self._first, self._started_s = self._step(), time.monotonic()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()
        if not self._quiet:
            self._thread.join()
