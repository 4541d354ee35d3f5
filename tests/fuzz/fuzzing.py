"""Runs mutated streams through every codec and counts what becomes of them.

A stream is refused with a `BitstreamError`, or it decodes to something that encodes to the very same bytes. What has
no checksum made for it must be refused, unless the mutation came back to an intact stream. Files that have no checksums
may decode to anything, but to no larger picture than they announce. Anything else is a finding: another exception, more
than `MOST_SECONDS` of processor time, or more than `MOST_BYTES` of memory.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import numpy as np
from fuzz_files import more_targets
from fuzz_targets import Target, targets
from mutations import Mutant, mutate

from gosvae.bitstream import salvage, unpack_slices
from gosvae.codecs.latent import Latent
from gosvae.errors import BitstreamError, ForeignStreamError

MOST_SECONDS = 10.0
"""Of processor time, for one stream."""
FREE_SECONDS, SECONDS_PER_PIXEL = 0.020, 2e-6
"""Of processor time, that a stream may take until it is refused or its symbols are known, and for each pixel announced.

The networks behind the symbols are not counted. Whether a stream takes more is reported and is no finding: the figure
depends on the processor and on what else it does.
"""
MOST_BYTES = 64 * 2**20
"""By which the address space of the process may grow, for one stream."""
MOST_PIXELS = 2**19
"""Of a picture that is drawn: a valid stream of a large picture may take the memory of a large picture."""
CASES_PER_BLOCK = 100
TIMED_EVERY = 4
"""One in so many streams is decoded a second time, to measure the processor time of its symbols alone."""
PICTURE_EVERY = 20
"""So many streams that are refused by the decoder are also given to the whole codec."""


class OutOfTime(BaseException):
    """A stream took too long."""


@dataclass
class Report:
    """What became of the streams.

    Attributes:
        outcomes: how often each (kind of mutation, outcome) occurred.
        by_target: number of streams for each target.
        findings: one line for each stream that did what none may do.
        salvaged: streams of which some slices could still be read.
        slowest_seconds: processor time of the slowest one, and its number.
        largest_share: largest share of the time that a stream may take until it is refused or decoded, and its number.
        over: number of streams that take more than that.
        seconds: processor time of all.
        peak_bytes: by which the resident memory grew at most in a block of streams; None where it cannot be told.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_target: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    salvaged: int = 0
    slowest_seconds: tuple[float, int] = (0.0, -1)
    seconds: float = 0.0
    peak_bytes: int | None = None
    largest_share: tuple[float, int] = (0.0, -1)
    over: int = 0


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise OutOfTime


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise `OutOfTime` after `MOST_SECONDS` of processor time."""
    before = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _status(key: str) -> int:
    """A line of Linux's account of this process, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.partition(f"{key}:")[2].split()[0])


@contextmanager
def memory_limit(report: Report) -> Iterator[None]:
    """On Linux, let the address space grow by `MOST_BYTES` only, and note the peak of the resident memory."""
    if not sys.platform.startswith("linux"):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _status("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + MOST_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        report.peak_bytes = max(report.peak_bytes or 0, _status("VmHWM") - before)


def _reason(error: BitstreamError) -> str:
    """The first words of a refusal, without numbers."""
    if isinstance(error, ForeignStreamError):
        return "refused: foreign"
    words = str(error).replace(":", "").split()[:2]
    first = " ".join(word for word in words if word.isalpha())
    return f"refused: {first}"


def _outcome(target: Target, mutant: Mutant, also_picture: bool) -> str:
    """What became of one stream; an AssertionError is a finding."""
    data = mutant.data
    try:
        decoded = target.decode(data)
    except BitstreamError as error:
        if data in target.streams:
            raise AssertionError("an intact stream was refused") from error
        if also_picture and target.decompress is not None:
            try:
                target.decompress(data)
            except BitstreamError:
                return _reason(error)
            raise AssertionError("decompress accepts what decode refuses") from error
        return _reason(error)
    if target.encode is None:  # without checksums: what a stream holds is not known
        return "intact again" if data in target.streams else "another file"
    if target.encode(unpack_slices(data), decoded) != data:
        raise AssertionError("silently wrong: decodes to what encodes to other bytes")
    if data in target.streams:
        return "intact again"
    if not mutant.forged:
        raise AssertionError("silently wrong: damage passed for a stream")
    height, width = unpack_slices(data).header.height, unpack_slices(data).header.width
    if target.decompress is None or height * width > MOST_PIXELS:
        return "another valid stream, not drawn"
    image = target.decompress(data)
    if (image.dtype, image.shape) != (np.uint8, (height, width, 3)):
        raise AssertionError(f"a picture of {image.shape}")
    return "another valid stream"


def _check_salvage(target: Target, mutant: Mutant, originals: dict[bytes, Latent]) -> bool:
    """Whether slices could be read; those of damaged streams must be the original ones."""
    if target.salvage is None:
        return False
    try:
        partial = target.salvage(mutant.data)
    except BitstreamError:
        return False
    if mutant.forged:
        return bool(partial.damaged)
    header = salvage(mutant.data).header
    known_hw = np.True_ if partial.known_hw is None else partial.known_hw
    for data, original in originals.items():
        # The header has the checksums of all slices: an intact one tells which stream this was.
        sides = (original.height, original.width)
        same = header == unpack_slices(data).header and (partial.height, partial.width) == sides
        if same and np.array_equal(np.where(known_hw, original.symbols, -1), partial.symbols):
            return bool(partial.damaged)
    raise AssertionError("silently wrong: salvaged slices are not those of any stream")


def run_fuzz(count: int, *, seed: int = 0, first: int = 0, progress: Callable[[int], None] | None = None) -> Report:
    """Try `count` mutated streams, from number `first` on; a number and a seed always make the same stream."""
    under_attack = (*targets(), *more_targets())
    weights = list(accumulate(target.weight for target in under_attack))
    everyone = [data for target in under_attack for data in target.streams]
    originals = {target.name: {data: target.decode(data) for data in target.streams} for target in under_attack}
    for target in under_attack:  # whatever is set up at the first use is no stream's fault
        for data in target.streams:
            if target.decompress is not None:
                target.decompress(data)
    report = Report()
    for start in range(first, first + count, CASES_PER_BLOCK):
        if progress is not None:
            progress(start)
        with memory_limit(report):
            for number in range(start, min(start + CASES_PER_BLOCK, first + count)):
                _try_one(number, Random(f"{seed} {number}"), under_attack, weights, everyone, originals, report)
    for target in under_attack:  # nothing that was read has changed a codec
        for data, decoded in originals[target.name].items():
            np.testing.assert_array_equal(target.decode(data).symbols, decoded.symbols)
    return report


def announced_pixels(data: bytes) -> int:
    """Number of pixels in the header of a stream; 0 if the header cannot be read."""
    try:
        header = salvage(data).header
    except BitstreamError:
        return 0
    return header.height * header.width


def share_of_time(target: Target, data: bytes) -> float:
    """Processor time of a stream until it is refused or its symbols are known, as a share of what it may take."""
    began = time.process_time()
    with suppress(BitstreamError):
        target.decode(data)
    return (time.process_time() - began) / (FREE_SECONDS + SECONDS_PER_PIXEL * announced_pixels(data))


def _try_one(
    number: int,
    random: Random,
    under_attack: tuple[Target, ...],
    weights: list[float],
    everyone: list[bytes],
    originals: dict[str, dict[bytes, Any]],
    report: Report,
) -> None:
    (target,) = random.choices(under_attack, cum_weights=weights)
    mutant = mutate(random, target.streams, everyone, target.forge)
    report.by_target[target.name] += 1
    began = time.process_time()
    try:
        with time_limit():
            outcome = _outcome(target, mutant, number % PICTURE_EVERY == 0)
            report.salvaged += _check_salvage(target, mutant, originals[target.name])
            if number % TIMED_EVERY == 0 and target.encode is not None:
                share = share_of_time(target, mutant.data)
                if share > 1:  # other work on the machine, or the garbage of earlier streams, may be the reason
                    share = min(share_of_time(target, mutant.data) for _ in range(3))
                report.largest_share = max(report.largest_share, (share, number))
                report.over += share > 1
    except (Exception, OutOfTime) as error:
        outcome = f"finding: {type(error).__name__}"
        line = str(error).splitlines()[0] if str(error) else ""
        what = f"number {number}, {target.name}, {mutant.kind}: {type(error).__name__}: {line}"
        report.findings.append(f"{what}: {mutant.data.hex()}")
    report.outcomes[mutant.kind, outcome] += 1
    seconds = time.process_time() - began
    report.slowest_seconds = max(report.slowest_seconds, (seconds, number))
    report.seconds += seconds
