"""Rows on several devices at once: each row is made in a process of its own, on one device.

Rows are independent: N devices make N rows at a time, and a row's numbers are those of one device.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol

import torch

from gosvae.errors import ConfigError
from gosvae.reproduce.job import Job
from gosvae.reproduce.plan import RowPlan
from gosvae.training.machine.loop import device_type


@dataclass
class Summary:
    """Outcome of a run of the plan.

    Attributes:
        done: ids of rows that are done, in this call or before.
        failed: reasons why rows could not be made, by id.
        left: ids of rows that were not reached, because the time was over or a signal came.
        standing: ids of the rows among `done` whose numbers were measured in another way, see `Runner.stands`.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    standing: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every row is done."""
        return not self.failed and not self.left


class Process(Protocol):
    """Part of `multiprocessing.Process` that is used."""

    @property
    def exitcode(self) -> int | None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def join(self) -> None: ...


Start = Callable[[RowPlan, int], tuple[Process, Connection]]
"""Function that starts a process for a row on a device, by its number from 0. The process sends lines of progress, and
the summary of the row as its last message."""


class Make(Protocol):
    """Function at the level of a module that makes one row in this process and returns its summary."""

    def __call__(
        self,
        job: Job,
        trained_with: str | None,
        rows: tuple[RowPlan, ...],
        folder: Path,
        row_id: str,
        minutes: float,
        say: Callable[[str], None],
    ) -> Summary: ...


@dataclass(frozen=True)
class RowStarter:
    """Starter of processes that make rows.

    Attributes:
        make: function that makes a row.
        job: choices of the reproduction.
        trained_with: see `World`.
        rows: all rows of the plan.
        folder: folder of the reproduction.
        deadline: time of `time.monotonic` at which processes end cleanly.
    """

    make: Make
    job: Job
    trained_with: str | None
    rows: tuple[RowPlan, ...]
    folder: Path
    deadline: float

    def check(self) -> None:
        """Raise `ConfigError` if there are fewer devices than asked for."""
        kind, wanted = device_type(self.job.run.accelerator), self.job.run.devices
        there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, wanted)
        if there < wanted:
            raise ConfigError(f"{wanted} devices of {kind!r} are asked for, and this machine has {there}")

    def __call__(self, row: RowPlan, device: int) -> tuple[Process, Connection]:
        """Start a process for a row; see `Start`."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe(duplex=False)
        run = self.job.run
        one = replace(self.job, run=run.model_copy(update={"devices": 1}))
        threads = None if device_type(run.accelerator) != "cpu" else max(1, torch.get_num_threads() // run.devices)
        minutes = max(0.0, self.deadline - time.monotonic()) / 60.0
        what = partial(self.make, one, self.trained_with, self.rows, self.folder, row.row_id, minutes)
        process = context.Process(target=_make_row, args=(there, what, threads), name=row.row_id, daemon=True)
        with _visible(device if device_type(run.accelerator) == "cuda" else None):
            process.start()
        there.close()
        return process, here


@contextlib.contextmanager
def _visible(device: int | None) -> Iterator[None]:
    """Let processes that start in this block see one GPU alone; None changes nothing."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if device is None:
        yield
        return
    os.environ[name] = str(device) if before is None else before.split(",")[device]
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _make_row(there: Connection, make: Callable[[Callable[[str], None]], Summary], threads: int | None) -> None:
    """Make one row in this process, and send lines of progress and the row's summary."""
    with contextlib.suppress(AttributeError, OSError):
        os.setsid()  # Ctrl-C reaches the first process alone, which ends the others once
    _end_with_parent()
    if threads is not None:
        torch.set_num_threads(threads)
    there.send(make(there.send))
    there.close()


def _end_with_parent() -> None:
    """Ask this process to end, as with SIGTERM, when the process that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True)
class _Running:
    """Row that is being made."""

    row: RowPlan
    device: int
    process: Process


def make_rows(
    todo: Sequence[RowPlan],
    summary: Summary,
    devices: int,
    start: Start,
    *,
    say: Callable[[str], None],
    on_row: Callable[[RowPlan], None],
    give_up: Callable[[RowPlan, str], None],
    deadline: float,
) -> None:
    """Make rows, as many at a time as there are devices; a row starts when all rows that it needs are done.

    Ctrl-C ends the trainings after their current step, a second one ends all processes at once.

    Args:
        todo: rows to make, each after those it needs.
        summary: summary of the rows that are done; it gets the others.
        start: see `Start`.
        say: function that takes lines of progress.
        on_row: function that is called after each row that was made or failed.
        give_up: function that notes why a row failed without an attempt.
        deadline: time of `time.monotonic` after which no row is started.

    Raises:
        KeyboardInterrupt: after a second Ctrl-C.
    """
    waiting, free, running = list(todo), list(range(devices)), dict[Connection, _Running]()
    stopping = False
    try:
        while waiting or running:
            try:
                stopping = stopping or bool(summary.left) or time.monotonic() >= deadline
                if stopping:
                    summary.left += [row.row_id for row in waiting]
                    waiting.clear()
                for row in _given_up(waiting, summary):
                    give_up(row, summary.failed[row.row_id])
                    on_row(row)
                _start(waiting, free, running, summary, start)
                if not running:  # what still waits needs rows that are left
                    summary.left += [row.row_id for row in waiting]
                    return
                for connection in wait(list(running)):
                    assert isinstance(connection, Connection)
                    one = running[connection]
                    message = _received(connection)
                    if isinstance(message, str):
                        say(f"device {one.device}: {message}")
                        continue
                    del running[connection]
                    connection.close()
                    one.process.join()
                    free.append(one.device)
                    _add(summary, one, message, give_up, stopping=stopping)
                    on_row(one.row)
            except KeyboardInterrupt:
                if stopping:
                    raise
                stopping = True
                say("Ctrl-C: saving after this step; repeat to stop at once")
                for one in running.values():
                    one.process.terminate()
    finally:
        for connection, one in running.items():
            one.process.kill()
            one.process.join()
            connection.close()


def _given_up(waiting: list[RowPlan], summary: Summary) -> list[RowPlan]:
    """Move rows that need a row that failed from those that wait to the summary, and return them."""
    found = []
    for row in list(waiting):
        missing = [name for name in row.needs if name in summary.failed]
        if missing:
            waiting.remove(row)
            summary.failed[row.row_id] = f"it needs the row {missing[0]}, which failed"
            found.append(row)
    return found


def _start(
    waiting: list[RowPlan], free: list[int], running: dict[Connection, _Running], summary: Summary, start: Start
) -> None:
    """Start the rows that can be made, on the free devices."""
    for row in list(waiting):
        if free and all(name in summary.done for name in row.needs):
            waiting.remove(row)
            device = free.pop(0)
            process, connection = start(row, device)
            running[connection] = _Running(row, device, process)


def _received(connection: Connection) -> object:
    """Return the next message of a process; None if it has ended without a summary."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        return None


def _add(
    summary: Summary, one: _Running, message: object, give_up: Callable[[RowPlan, str], None], *, stopping: bool
) -> None:
    """Add a row that has ended to the summary."""
    if isinstance(message, Summary):
        summary.done += message.done
        summary.left += message.left
        summary.failed |= message.failed
    elif stopping:
        summary.left.append(one.row.row_id)
    else:
        reason = f"its process on device {one.device} ended with exit status {one.process.exitcode}"
        summary.failed[one.row.row_id] = reason
        give_up(one.row, reason)
