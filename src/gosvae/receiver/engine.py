"""Engine of the receiver: frames of many senders wait for their turn, share the networks in batches, and are answered.

The queue is bounded. Every frame is either answered or dropped for a reason, and both are counted. The next frame is
one of the sender whose frames have taken the least time so far. The networks run in two threads. One of them is for
large frames and has low priority, so that large frames do not delay others. Everything else runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from gosvae.errors import ConfigError, LinkError
from gosvae.interruption import InterruptionError, interruptible
from gosvae.protocol.frames import Answer, Dropped, Frame, Outcome, Perceived, Reason
from gosvae.receiver.answers import answer
from gosvae.receiver.perception import Perception
from gosvae.receiver.turns import Ticket, Turns

log = logging.getLogger(__name__)

Policy = Literal["drop-oldest", "drop-newest", "block"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
OVERTIME = 10.0
"""Multiple of its deadline for which a batch may keep its thread while other frames wait for it."""
LOWER_PRIORITY = 10
"""Number by which the thread for large frames is nicer than the process (Linux only): it gets about a tenth of a busy
processor."""


@dataclass(frozen=True)
class EngineLimits:
    """Limits of the engine.

    Attributes:
        policy: name of the policy for a frame that arrives while the queue is full. `drop-oldest` drops the oldest
            frame of the sender that has the most frames in the queue, so that the newest frames of every sender come
            through; among senders with equally many it takes one whose latest frame was invalid or that had no answer
            yet. `drop-newest` drops the frame that arrived; with `block`, `submit` waits. For a patient frame `submit`
            waits with every policy.
        max_frames, max_bytes: greatest number of frames, and of their bytes, in the queue, of all senders together.
        max_batch: greatest number of frames that go through the networks together.
        deadline_ms: greatest age of a frame, from its arrival, when its turn comes; older frames are dropped, except
            patient ones. The work on a frame is given up if it takes `OVERTIME` times the deadline while others wait.
            0 means no deadline.

    Raises:
        ConfigError: the policy is unknown, or a limit allows nothing.
    """

    policy: Policy = "drop-oldest"
    max_frames: int = 64
    max_bytes: int = 2**26
    max_batch: int = 8
    deadline_ms: float = 1000.0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"unknown policy {self.policy!r}: expected one of {', '.join(POLICIES)}")
        if min(self.max_frames, self.max_bytes, self.max_batch) < 1 or not self.deadline_ms >= 0:
            raise ConfigError(
                f"a queue of {self.max_frames} frames and {self.max_bytes} bytes, batches of {self.max_batch}, a "
                f"deadline of {self.deadline_ms} ms: expected at least 1 of each, and a deadline of 0 or more"
            )


_OF_THE_FRAME = {Reason.MALFORMED, Reason.DAMAGED, Reason.FOREIGN, Reason.TOO_LARGE}
"""Reasons that lie in the frame itself and not in the work of the receiver."""
_WHY = {
    Reason.SHUTDOWN: "the receiver is closing",
    Reason.GONE: "its sender has left",
    Reason.STALE: f"it took more than {OVERTIME:g} times its deadline while others waited: send smaller pictures",
}
"""Texts of the reasons for which work is not begun or not finished."""

Observer = Callable[[Frame, Outcome, Perceived | None], None]
"""Function that is called with every frame, its outcome and, if it was answered, what the networks made of it."""


@dataclass(frozen=True)
class EngineCounters:
    """Numbers of frames: `received` is the sum of `answered`, all of `dropped`, `waiting` and `working`.

    Attributes:
        received: number of frames that were submitted.
        answered: number of frames that were answered.
        dropped: number of frames that were dropped, by `Reason`.
        waiting, waiting_bytes: number of frames, and of their bytes, in the queue now.
        working: number of frames in the networks now.
        batches: number of batches that went through the networks.
    """

    received: int
    answered: int
    dropped: Mapping[Reason, int]
    waiting: int
    waiting_bytes: int
    working: int
    batches: int

    @property
    def unaccounted(self) -> int:
        """Number of received frames that no other count includes; anything but 0 is a defect of the engine."""
        return self.received - self.answered - sum(self.dropped.values()) - self.waiting - self.working


class _Lane:
    """A thread for the networks, and the frames that it takes: the usual or the large ones."""

    def __init__(self, *, large: bool, max_batch: int) -> None:
        self.large, self.max_batch = large, max_batch
        self.ready = asyncio.Event()
        name = "gosvae-engine-large" if large else "gosvae-engine"
        self.thread = ThreadPoolExecutor(1, name, initializer=_lower_priority if large else None)
        self.worker: asyncio.Task[None] | None = None


class Engine:
    """Queue in front of the networks, for one event loop: `async with Engine(perception, limits) as engine`.

    Args:
        perception: codec and experts for the frames.
        limits: limits of the queue; None means the defaults.
        clock: clock of `Frame.arrived_s`, in seconds.

    Attributes:
        observers: functions that are called on the event loop with every outcome.
    """

    def __init__(
        self,
        perception: Perception,
        limits: EngineLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.perception, self._clock = perception, clock
        self.limits = limits or EngineLimits()
        self.observers: list[Observer] = []
        self._turns = Turns()
        self._lanes = (
            _Lane(large=False, max_batch=self.limits.max_batch),
            _Lane(large=True, max_batch=1),
        )
        self._working = self._batches = self._blocked = 0
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[Reason] = Counter()
        self._room = asyncio.Event()
        self._closing = self._stopping = False

    async def __aenter__(self) -> Self:
        for lane in self._lanes:
            lane.worker = asyncio.create_task(self._work(lane))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def counters(self) -> EngineCounters:
        """Numbers of frames so far."""
        return EngineCounters(
            received=self._counts["received"],
            answered=self._counts["answered"],
            dropped={reason: self._dropped[reason] for reason in Reason},
            waiting=sum(self._turns.waiting) + self._blocked,
            waiting_bytes=self._turns.waiting_bytes,
            working=self._working,
            batches=self._batches,
        )

    async def submit(self, frame: Frame) -> asyncio.Future[Outcome]:
        """Put a frame into the queue and return a future of its outcome.

        If the policy is `block` or the frame is patient, this waits for a place in the queue; otherwise it returns at
        once. Patient frames take at most half of the queue, or one place, so that other frames get through. A caller
        that no longer wants the outcome cancels the future.
        """
        self._counts["received"] += 1
        ticket = self._ticket(frame)
        if frame.n_bytes > self.limits.max_bytes:
            return self._drop(ticket, Reason.TOO_LARGE, f"{frame.n_bytes} bytes are more than the whole queue holds")
        if ticket.pixels > self.perception.max_pixels:
            text = f"a frame of {ticket.pixels} pixels: this receiver takes {self.perception.max_pixels}"
            return self._drop(ticket, Reason.TOO_LARGE, text)
        if self.limits.policy == "block" or frame.patient:
            await self._wait_for_room(ticket)
        if self._closing:
            return self._drop(ticket, Reason.SHUTDOWN, _WHY[Reason.SHUTDOWN])
        if not self._may_enter(frame):
            return self._drop(ticket, Reason.QUEUE_FULL, f"{sum(self._turns.waiting)} frames wait already: send fewer")
        while not self._fits(frame):
            victim = self._turns.oldest_of_the_busiest(frame.sender)
            self._drop(victim, Reason.SUPERSEDED, "newer frames took its place in the queue")
        self._turns.add(ticket)
        self._lanes[ticket.large].ready.set()
        return ticket.outcome

    def drop(self, frame: Frame, reason: Reason, text: str) -> Outcome:
        """Drop a frame without putting it into the queue, count it, and return its outcome."""
        self._counts["received"] += 1
        ticket = Ticket(frame, asyncio.get_running_loop().create_future(), pixels=0, large=False)
        return self._drop(ticket, reason, text).result()

    def _ticket(self, frame: Frame) -> Ticket:
        pixels = self.perception.pixels(frame.stream)
        large = pixels > self.perception.large_pixels
        return Ticket(frame, asyncio.get_running_loop().create_future(), pixels, large)

    async def _wait_for_room(self, ticket: Ticket) -> None:
        self._blocked += 1
        try:
            while not self._closing and not self._may_enter(ticket.frame):
                self._room.clear()
                await self._room.wait()
        except asyncio.CancelledError:
            self._dropped[Reason.GONE] += 1
            raise
        finally:
            self._blocked -= 1

    def _fits(self, frame: Frame) -> bool:
        limits, turns = self.limits, self._turns
        return sum(turns.waiting) < limits.max_frames and turns.waiting_bytes + frame.n_bytes <= limits.max_bytes

    def _may_enter(self, frame: Frame) -> bool:
        """Whether a frame has a place in the queue, or gets one for which the policy drops others."""
        limits, turns = self.limits, self._turns
        share = 2 if frame.patient and turns.patient else 1
        beside_patient = (
            turns.patient < limits.max_frames // share
            and turns.patient_bytes + frame.n_bytes <= limits.max_bytes // share
        )
        return beside_patient and (limits.policy == "drop-oldest" or self._fits(frame))

    def _drop(self, ticket: Ticket, reason: Reason, text: str) -> asyncio.Future[Outcome]:
        self._finish(ticket, Dropped(reason, text, ticket.frame.number))
        return ticket.outcome

    def _finish(self, ticket: Ticket, outcome: Outcome, perceived: Perceived | None = None) -> None:
        """Count an outcome, call the observers with it, and complete the frame's future."""
        if isinstance(outcome, Answer):
            self._counts["answered"] += 1
            self._turns.prove(ticket.frame.sender, answered=True)
        else:
            self._dropped[outcome.reason] += 1
            if outcome.reason in _OF_THE_FRAME:
                self._turns.prove(ticket.frame.sender, answered=False)
        for observer in self.observers:
            try:
                observer(ticket.frame, outcome, perceived)
            except Exception:  # an observer must not stop the engine
                log.exception("an observer failed on frame %d", ticket.frame.number)
        if not ticket.outcome.done():
            ticket.outcome.set_result(outcome)

    def _next_batch(self, lane: _Lane) -> list[Ticket]:
        """Return the frames of a lane whose turn it is; drop frames that are too old or unwanted."""
        batch: list[Ticket] = []
        while self._turns.waiting[lane.large] and len(batch) < lane.max_batch:
            ticket = self._turns.take(large=lane.large)
            deadline_ms = self._deadline_ms(ticket.frame)
            age_ms = 1000.0 * (self._clock() - ticket.frame.arrived_s)
            if not ticket.outcome.cancelled() and not 0 < deadline_ms < age_ms:
                batch.append(ticket)
                continue
            self._turns.refund(ticket)
            if ticket.outcome.cancelled():
                self._drop(ticket, Reason.GONE, "its sender has left")
            else:
                self._drop(ticket, Reason.STALE, f"{age_ms:.0f} ms old when its turn came, {deadline_ms:.0f} allowed")
        self._room.set()
        return batch

    def _deadline_ms(self, frame: Frame) -> float:
        """Return the deadline of a frame, the shorter one of the engine's and its own; 0 if it has none."""
        limits_ms = (0.0 if frame.patient else self.limits.deadline_ms, frame.deadline_ms)
        return min((limit_ms for limit_ms in limits_ms if limit_ms > 0), default=0.0)

    async def _work(self, lane: _Lane) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await lane.ready.wait()
            batch = self._next_batch(lane)
            if not batch:
                if not self._turns.waiting[lane.large]:
                    lane.ready.clear()
                continue
            self._working, self._batches = self._working + len(batch), self._batches + 1
            began_s = self._clock()
            try:
                results = await loop.run_in_executor(lane.thread, self._perceive, batch, lane)
            finally:
                self._working -= len(batch)
            self._turns.charge(batch, self._clock() - began_s)
            for ticket, (outcome, perceived) in zip(batch, results, strict=True):
                self._finish(ticket, outcome, perceived)

    def _perceive(self, batch: Sequence[Ticket], lane: _Lane) -> list[tuple[Outcome, Perceived | None]]:
        """Run the networks on a batch and code the answers; called in the lane's thread."""
        frames = [ticket.frame for ticket in batch]
        began_s = self._clock()
        long = sum(ticket.pixels for ticket in batch) > self.perception.large_pixels  # else stages are short enough
        try:
            with interruptible(lambda: self._unwanted(batch, lane, began_s), operations=long):
                parts = [(frame.stream, frame.incomplete) for frame in frames]
                results = self.perception(parts, [frame.sender for frame in frames])
        except InterruptionError as interruption:
            reason = Reason(str(interruption))
            return [(Dropped(reason, _WHY[reason], frame.number), None) for frame in frames]
        except Exception:
            log.exception("a batch of %d frames failed", len(frames))
            text = "the receiver failed on this frame and logged why"
            return [(Dropped(Reason.FAILED, text, frame.number), None) for frame in frames]
        outcomes: list[tuple[Outcome, Perceived | None]] = []
        for frame, result in zip(frames, results, strict=True):
            if isinstance(result, Dropped):
                outcomes.append((replace(result, number=frame.number), None))
                continue
            result.stages.queue_ms = 1000.0 * (began_s - frame.arrived_s)
            outcomes.append(self._answered(frame, result))
        return outcomes

    def _answered(self, frame: Frame, perceived: Perceived) -> tuple[Outcome, Perceived | None]:
        """Return the answer to a frame; it is dropped if the results of its experts cannot be sent."""
        try:
            results = self.perception.arrays(perceived) if frame.results else {}
            return answer(frame, perceived, results), perceived
        except LinkError as error:
            return Dropped(Reason.FAILED, str(error), frame.number), None
        except Exception:  # of a task of another package
            log.exception("the results of a frame failed")
            return Dropped(Reason.FAILED, "the receiver failed on this frame and logged why", frame.number), None

    def _unwanted(self, batch: Sequence[Ticket], lane: _Lane, began_s: float) -> Reason | None:
        """Return the reason to stop the work on a batch that began at a time; called in the lane's thread."""
        if self._stopping:
            return Reason.SHUTDOWN
        if all(ticket.outcome.cancelled() for ticket in batch):
            return Reason.GONE
        deadlines_ms = [self._deadline_ms(ticket.frame) for ticket in batch]
        overdue = all(0 < OVERTIME * ms < 1000.0 * (self._clock() - began_s) for ms in deadlines_ms)
        return Reason.STALE if overdue and self._turns.waiting[lane.large] else None

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop the engine: take no more frames, process those in the queue for at most `grace_s`, and drop the rest.

        Work that then still runs ends at its next stage or, if it is long, at its next operation of PyTorch.
        """
        self._closing = True
        self._room.set()
        end_s = time.monotonic() + grace_s
        while (any(self._turns.waiting) or self._working) and time.monotonic() < end_s:
            await asyncio.sleep(0.01)
        self._stopping = True
        while any(self._turns.waiting):
            self._drop(self._turns.any(), Reason.SHUTDOWN, _WHY[Reason.SHUTDOWN])
        while self._working:  # until the next stage or operation
            await asyncio.sleep(0.01)
        for lane in self._lanes:
            worker, lane.worker = lane.worker, None
            if worker is not None:
                worker.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await worker
            lane.thread.shutdown(wait=False)


def _lower_priority() -> None:
    """Lower the priority of the calling thread, and of the threads that PyTorch starts for it."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        nice = os.getpriority(os.PRIO_PROCESS, 0) + LOWER_PRIORITY
        with contextlib.suppress(OSError):  # where a sandbox forbids it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(nice, 19))
