"""The receiver's engine: frames of many senders wait their turn, share the networks in batches, and are answered.

The queue is bounded, and every frame ends in one of two ways: it is answered, or it is dropped for a reason that is
counted. Networks run in one thread of their own; everything else on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

from gosvae.errors import ConfigError
from gosvae.link.class_maps import ClassMapCoding, encode_class_map
from gosvae.link.perception import Perceived, Perception, Reason, Trouble

log = logging.getLogger(__name__)

Policy = Literal["drop-oldest", "drop-newest", "block"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(frozen=True)
class EngineLimits:
    """What the engine takes.

    Attributes:
        policy: when the queue is full: `drop-oldest`, the oldest frame of the sender that has the most in it, so that
            the newest of each come through; `drop-newest`, the frame that came; `block`, `submit` waits.
        max_frames, max_bytes: that wait, of all senders together.
        max_batch: frames that go through the networks together, at most.
        deadline_ms: a frame that is older, from its arrival, when its turn comes is dropped; 0: none is.

    Raises:
        ConfigError: an unknown policy, or a limit that lets nothing through.
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


@dataclass(frozen=True)
class Frame:
    """A frame that arrived.

    Attributes:
        sender: tells senders apart; not what they call themselves.
        number: as the sender counts.
        stream: what the codec made, or what is left of it.
        incomplete: slices are missing: the codec conceals them.
        coding: of the class map in the answer.
        deadline_ms: at most so old when its turn comes; 0: as the engine has it. The shorter of both counts.
        original: the picture as an image file, for people; empty where none was sent.
        arrived_s: on the clock of `time.monotonic`.
    """

    sender: str
    number: int
    stream: bytes
    incomplete: bool = False
    coding: ClassMapCoding = "zlib"
    deadline_ms: float = 0.0
    original: bytes = b""
    arrived_s: float = field(default_factory=time.monotonic)

    @property
    def n_bytes(self) -> int:
        """What it takes in the queue."""
        return len(self.stream) + len(self.original)


@dataclass(frozen=True)
class Answer:
    """A frame with its result; `class_map` is coded as the frame asked for."""

    frame: Frame
    perceived: Perceived
    class_map: bytes


@dataclass(frozen=True)
class Dropped:
    """A frame without a result, and why."""

    frame: Frame
    trouble: Trouble


Outcome = Answer | Dropped
Observer = Callable[[Outcome], None]


@dataclass(frozen=True)
class EngineCounters:
    """`received` = `answered` + all of `dropped` + `waiting` + `working`.

    Attributes:
        received: frames that were submitted.
        answered: frames with a result.
        dropped: frames without one, by `Reason`.
        waiting, waiting_bytes: in the queue now.
        working: in the networks now.
        batches: that went through the networks.
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
        """Frames that are nowhere: 0, or the engine has a defect."""
        return self.received - self.answered - sum(self.dropped.values()) - self.waiting - self.working


@dataclass
class _Ticket:
    frame: Frame
    outcome: asyncio.Future[Outcome]


class Engine:
    """Made for one event loop: `async with Engine(perception, limits) as engine`."""

    def __init__(self, perception: Perception, limits: EngineLimits | None = None) -> None:
        self.perception = perception
        self.limits = limits or EngineLimits()
        self.observers: list[Observer] = []
        """Called with every outcome, on the event loop."""
        self._queues: OrderedDict[str, deque[_Ticket]] = OrderedDict()
        self._waiting = self._waiting_bytes = self._working = self._batches = 0
        self._blocked = 0
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[Reason] = Counter()
        self._ready, self._room = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gosvae-engine")
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def counters(self) -> EngineCounters:
        """What became of all frames so far."""
        counts = self._counts
        dropped = {reason: self._dropped[reason] for reason in Reason}
        waiting = self._waiting + self._blocked
        return EngineCounters(
            *(counts["received"], counts["answered"], dropped),
            *(waiting, self._waiting_bytes, self._working, self._batches),
        )

    async def submit(self, frame: Frame) -> asyncio.Future[Outcome]:
        """Take a frame. The future has its outcome; who no longer wants it cancels the future.

        Returns at once, but for the policy `block` and a full queue.
        """
        self._counts["received"] += 1
        ticket = _Ticket(frame, asyncio.get_running_loop().create_future())
        if frame.n_bytes > self.limits.max_bytes:
            return self._drop(ticket, Reason.TOO_LARGE, f"{frame.n_bytes} bytes are more than the whole queue holds")
        if self.limits.policy == "block":
            await self._wait_for_room(ticket)
        if self._closing:
            return self._drop(ticket, Reason.SHUTDOWN, "the receiver is closing")
        if self.limits.policy == "drop-newest" and not self._fits(frame):
            return self._drop(ticket, Reason.QUEUE_FULL, f"{self._waiting} frames wait already: send fewer")
        while not self._fits(frame):
            victim = self._oldest_of_the_busiest(frame.sender)
            self._drop(victim, Reason.SUPERSEDED, "newer frames took its place in the queue")
        self._queues.setdefault(frame.sender, deque()).append(ticket)
        self._waiting += 1
        self._waiting_bytes += frame.n_bytes
        self._ready.set()
        return ticket.outcome

    def refuse(self, frame: Frame, reason: Reason, text: str) -> Outcome:
        """Count a frame that the engine is not to see, as dropped."""
        self._counts["received"] += 1
        return self._drop(_Ticket(frame, asyncio.get_running_loop().create_future()), reason, text).result()

    async def _wait_for_room(self, ticket: _Ticket) -> None:
        self._blocked += 1
        try:
            while not self._closing and not self._fits(ticket.frame):
                self._room.clear()
                await self._room.wait()
        except asyncio.CancelledError:
            self._dropped[Reason.GONE] += 1
            raise
        finally:
            self._blocked -= 1

    def _fits(self, frame: Frame) -> bool:
        limits = self.limits
        return self._waiting < limits.max_frames and self._waiting_bytes + frame.n_bytes <= limits.max_bytes

    def _oldest_of_the_busiest(self, sender: str) -> _Ticket:
        """Take the frame that makes room out of the queue; of equally busy senders the one that sent just now."""
        busiest = max(self._queues, key=lambda name: (len(self._queues[name]), name == sender))
        return self._pop(busiest)

    def _pop(self, sender: str) -> _Ticket:
        queue = self._queues[sender]
        ticket = queue.popleft()
        if not queue:
            del self._queues[sender]
        self._waiting -= 1
        self._waiting_bytes -= ticket.frame.n_bytes
        return ticket

    def _drop(self, ticket: _Ticket, reason: Reason, text: str) -> asyncio.Future[Outcome]:
        self._finish(ticket, Dropped(ticket.frame, Trouble(reason, text)))
        return ticket.outcome

    def _finish(self, ticket: _Ticket, outcome: Outcome) -> None:
        """Count, tell the observers, answer."""
        if isinstance(outcome, Answer):
            self._counts["answered"] += 1
        else:
            self._dropped[outcome.trouble.reason] += 1
        for observer in self.observers:
            try:
                observer(outcome)
            except Exception:  # whoever looks on must not stop the engine
                log.exception("an observer failed on frame %d", outcome.frame.number)
        if not ticket.outcome.done():
            ticket.outcome.set_result(outcome)

    def _next_batch(self) -> list[_Ticket]:
        """Frames whose turn it is, of one sender after the other; those that are too old or unwanted are dropped."""
        batch: list[_Ticket] = []
        while self._queues and len(batch) < self.limits.max_batch:
            sender = next(iter(self._queues))
            ticket = self._pop(sender)
            if sender in self._queues:
                self._queues.move_to_end(sender)
            deadline_ms = min((d for d in (self.limits.deadline_ms, ticket.frame.deadline_ms) if d > 0), default=0.0)
            age_ms = 1000.0 * (time.monotonic() - ticket.frame.arrived_s)
            if ticket.outcome.cancelled():
                self._drop(ticket, Reason.GONE, "its sender has left")
            elif 0 < deadline_ms < age_ms:
                self._drop(ticket, Reason.STALE, f"{age_ms:.0f} ms old when its turn came, {deadline_ms:.0f} allowed")
            else:
                batch.append(ticket)
        self._room.set()
        return batch

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._ready.wait()
            batch = self._next_batch()
            if not batch:
                if not self._queues:
                    self._ready.clear()
                continue
            self._working, self._batches = len(batch), self._batches + 1
            frames = [ticket.frame for ticket in batch]
            try:
                outcomes = await loop.run_in_executor(self._thread, self._perceive, frames)
            finally:
                self._working = 0
            for ticket, outcome in zip(batch, outcomes, strict=True):
                self._finish(ticket, outcome)

    def _perceive(self, frames: list[Frame]) -> list[Outcome]:
        """In the engine's thread: networks and coding of the answers."""
        began_s = time.monotonic()
        try:
            results = self.perception([(frame.stream, frame.incomplete) for frame in frames])
        except Exception:
            log.exception("a batch of %d frames failed", len(frames))
            failed = Trouble(Reason.FAILED, "the receiver failed on this frame and logged why")
            return [Dropped(frame, failed) for frame in frames]
        outcomes: list[Outcome] = []
        for frame, result in zip(frames, results, strict=True):
            if isinstance(result, Trouble):
                outcomes.append(Dropped(frame, result))
                continue
            result.stages.queue_ms = 1000.0 * (began_s - frame.arrived_s)
            coding_s = time.perf_counter()
            class_map = encode_class_map(result.classes_uint8_HW, frame.coding)
            result.stages.answer_ms = 1000.0 * (time.perf_counter() - coding_s)
            result.stages.total_ms = 1000.0 * (time.monotonic() - frame.arrived_s)
            outcomes.append(Answer(frame, result, class_map))
        return outcomes

    async def close(self, grace_s: float = 5.0) -> None:
        """Take no more frames, work on those that wait for so long at most, drop the rest."""
        self._closing = True
        self._room.set()
        end_s = time.monotonic() + grace_s
        while (self._queues or self._working) and time.monotonic() < end_s:
            await asyncio.sleep(0.01)
        while self._queues:
            self._drop(self._pop(next(iter(self._queues))), Reason.SHUTDOWN, "the receiver is closing")
        while self._working:  # a thread cannot be stopped, and a batch does not take long
            await asyncio.sleep(0.01)
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
            self._worker = None
        self._thread.shutdown(wait=False)
