"""One file or many through a codec: in one process or several, with a line for each file or a progress bar.

An input that cannot be used is told and counted, and the others are done.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

import torch
from tqdm import tqdm

from gosvae.cli.main import message_of
from gosvae.cli.targets import Job, Plan
from gosvae.errors import BitstreamError, ConfigError, GosvaeError, ImageError, RateError
from gosvae.files import write_atomically
from gosvae.units import kib
from gosvae.walk import printable


@dataclass(frozen=True)
class Result:
    """Outcome of one file.

    Attributes:
        job: the file.
        read_bytes: number of bytes that were read.
        written_bytes: number of bytes that were written.
        facts: what `--json` prints.
        line: what is printed without it, behind the names of the files.
        error: reason why the input could not be used; None if it could.
    """

    job: Job
    read_bytes: int = 0
    written_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    line: str = ""
    error: GosvaeError | None = None


class Work(ABC):
    """Work on each file; it is sent to other processes before `prepare` is called there."""

    @abstractmethod
    def prepare(self) -> None:
        """Load what all files need."""

    @abstractmethod
    def __call__(self, job: Job) -> Result:
        """Read, convert and write one file."""


_work: Work | None = None
"""Work of a worker process."""


def attempt(work: Work, job: Job) -> Result:
    """Return the result of one file; an input that cannot be used is a result, anything else is raised."""
    try:
        return work(job)
    except (ImageError, BitstreamError, RateError) as error:
        return Result(job, error=error)


def _begin(work: Work, n_threads: int) -> None:
    """Prepare a worker process."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends the others
    torch.set_num_threads(n_threads)
    work.prepare()
    _work = work


def _in_worker(job: Job) -> Result:
    assert _work is not None
    return attempt(_work, job)


def _results(work: Work, jobs: tuple[Job, ...], n_processes: int) -> Iterator[Result]:
    """Yield the results of all files in their order."""
    n_processes = min(n_processes, len(jobs))
    if n_processes <= 1:
        work.prepare()
        yield from (attempt(work, job) for job in jobs)
        return
    n_threads = max(1, torch.get_num_threads() // n_processes)
    pool = ProcessPoolExecutor(n_processes, get_context("spawn"), _begin, (work, n_threads))
    try:
        yield from pool.map(_in_worker, jobs)
    except BrokenProcessPool:
        raise ConfigError("a process has ended, perhaps for want of memory: give fewer --jobs") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_all(work: Work, plan: Plan, options: argparse.Namespace, note: str | None = None) -> int:
    """Do all files of a plan and return the exit status: 0, or 1 if some of several inputs could not be used.

    `options` are those of `add_batch`; a `note` and that of the plan are printed on standard error when the first file
    is done.

    Raises:
        GosvaeError: the only input, or all of them, could not be used; or nothing can be written.
    """
    began_s = time.perf_counter()
    many = len(plan.jobs) + plan.skipped > 1 or plan.of_folder or plan.skipped > 0
    output = sys.stderr if plan.to_stdout else sys.stdout
    tally = _Tally(skipped=plan.skipped)
    hidden = options.quiet or options.json or not plan.of_folder
    bar = tqdm(total=len(plan.jobs), unit="file", leave=False, disable=True if hidden else None, file=sys.stderr)
    results = _results(work, plan.jobs, options.jobs)
    try:
        with bar:
            for result in results:
                if result.error is not None and not many:
                    raise result.error
                if result.error is None and not tally.done and not options.quiet:
                    for line in filter(None, (note, plan.note)):
                        tqdm.write(f"gosvae: note: {line}", file=sys.stderr)
                tally.add(result)
                _tell(result, plan, options)
                bar.update()
    except BaseException:
        if many and 0 < tally.done + tally.failed < len(plan.jobs):
            done = f"stopped after {tally.done + tally.failed} of {len(plan.jobs)} files"
            print(f"gosvae: {done}; the same command with --skip-existing goes on", file=sys.stderr)
        raise
    finally:
        results.close()  # type: ignore[attr-defined]
    if many and not options.json and not options.quiet:
        print(tally.line(time.perf_counter() - began_s), file=output, flush=True)
    if tally.failed and not tally.done and not plan.skipped:
        raise ConfigError(f"none of the {tally.failed} files could be used")
    return 1 if tally.failed else 0


@dataclass
class _Tally:
    """Sums over all files."""

    skipped: int
    done: int = 0
    failed: int = 0
    read_bytes: int = 0
    written_bytes: int = 0

    def add(self, result: Result) -> None:
        self.failed += result.error is not None
        self.done += result.error is None
        self.read_bytes += result.read_bytes
        self.written_bytes += result.written_bytes

    def line(self, seconds: float) -> str:
        files = f"{self.done} file{'s' * (self.done != 1)}"
        smaller, larger = sorted((self.read_bytes, self.written_bytes))
        ratio = f", ratio {larger / smaller:.2f}" if smaller else ""
        sizes = f"{kib(self.read_bytes):.2f} KiB -> {kib(self.written_bytes):.2f} KiB{ratio}"
        others = [(self.failed, "could not be used"), (self.skipped, "left as they were")]
        told = "".join(f"; {count} {what}" for count, what in others if count)
        return f"{files}: {sizes}, {seconds:.1f} s{told}"


def _tell(result: Result, plan: Plan, options: argparse.Namespace) -> None:
    """Print the line of one file."""
    job = result.job
    output = sys.stderr if plan.to_stdout else sys.stdout
    names = {"source": job.shown, "target": "-" if job.target is None else printable(job.target)}
    if result.error is not None:
        line = f"gosvae: skipped: {message_of(result.error, options.parser)}"
        tqdm.write(line, file=sys.stderr)
        if options.json:
            print(
                json.dumps({"source": names["source"], "error": printable(str(result.error))}), file=output, flush=True
            )
    elif options.json:
        print(json.dumps({**names, **result.facts}), file=output, flush=True)
    elif not options.quiet and not plan.of_folder:
        print(f"{names['source']} -> {names['target']}: {result.line}", file=output, flush=True)


def write_result(target: Path | None, data: bytes) -> None:
    """Write a file, or standard output where `target` is None.

    Raises:
        WriteError: it cannot be written.
        ConfigError: standard output is a terminal or closed.
    """
    if target is not None:
        write_atomically(target, data)
        return
    stream: BinaryIO | None = getattr(sys.stdout, "buffer", None)
    if stream is None or sys.stdout.isatty():
        raise ConfigError("standard output takes no bytes here: lead it to a file or a command, or name a file with -o")
    stream.write(data)
    stream.flush()


def add_batch(parser: argparse.ArgumentParser) -> None:
    """`--force`, `--skip-existing`, `--jobs`, `--quiet` and `--json`."""
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--force", action="store_true", help="replace results that are there already")
    there.add_argument(
        "--skip-existing", action="store_true",
        help="leave results that are there already, whatever made them, and do the rest",
    )  # fmt: skip
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help="number of processes, for many files")
    told = parser.add_mutually_exclusive_group()
    told.add_argument("--quiet", action="store_true", help="print nothing but errors")
    told.add_argument("--json", action="store_true", help="print one JSON object a line for each file")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)
