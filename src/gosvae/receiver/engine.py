"""The receiver's engine: frames of many senders wait their turn, share the networks in batches, and are answered.

The queue is bounded. Every frame ends in one of two ways: it is answered, or it is dropped for a reason, and both are
counted. Networks run in one thread of their own, everything else runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import numpy as np

from gosvae.errors import ConfigError
from gosvae.protocol.class_maps import encode_class_map
from gosvae.protocol.frames import Answer, Dropped, Frame, Outcome, Perceived, Reason
from gosvae.receiver.perception import Perception

log = logging.getLogger(__name__)

Policy = Literal["drop-oldest", "drop-newest", "block"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(frozen=True)
class EngineLimits:
    """Limits of the engine.

    Attributes:
        policy: name of the policy for a frame that arrives while the queue is full. `drop-oldest` drops the oldest
            frame of the sender that has the most frames in the queue, so that the newest frames of every sender come
            through; `drop-newest` drops the frame that arrived; with `block`, `submit` waits. For a patient frame
            `submit` waits with every policy.
        max_frames, max_bytes: greatest number of frames, and of their bytes, in the queue, of all senders together.
        max_batch: greatest number of frames that go through the networks together.
        deadline_ms: greatest age of a frame, from its arrival, when its turn comes; older frames are dropped, but for
            patient ones. 0 means no deadline.

    Raises:
        ConfigError: the policy is unknown, or a limit lets nothing through.
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


Observer = Callable[[Frame, Outcome, Perceived | None], None]
"""Function that is called with every frame, its outcome and, if it was answered, what the networks made of it."""


@dataclass(frozen=True)
class EngineCounters:
    """Numbers of frames; `received` = `answered` + the sum of `dropped` + `waiting` + `working`.

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
        """Number of frames that are missing in the counts; anything but 0 is a defect of the engine."""
        return self.received - self.answered - sum(self.dropped.values()) - self.waiting - self.working


@dataclass
class _Ticket:
    frame: Frame
    outcome: asyncio.Future[Outcome]


class Engine:
    """Queue in front of the networks, for one event loop: `async with Engine(perception, limits) as engine`.

    Args:
        perception: decodes frames and shows them to the expert.
        limits: limits of the queue; None means the defaults.

    Attributes:
        observers: functions that are called on the event loop with every outcome.
    """

    def __init__(self, perception: Perception, limits: EngineLimits | None = None) -> None:
        self.perception = perception
        self.limits = limits or EngineLimits()
        self.observers: list[Observer] = []
        self._queues: OrderedDict[str, deque[_Ticket]] = OrderedDict()
        self._waiting = self._waiting_bytes = self._working = self._batches = 0
        self._blocked = self._patient = self._patient_bytes = 0
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
        """Numbers of frames so far."""
        return EngineCounters(
            received=self._counts["received"],
            answered=self._counts["answered"],
            dropped={reason: self._dropped[reason] for reason in Reason},
            waiting=self._waiting + self._blocked,
            waiting_bytes=self._waiting_bytes,
            working=self._working,
            batches=self._batches,
        )

    async def submit(self, frame: Frame) -> asyncio.Future[Outcome]:
        """Put a frame into the queue and return a future of its outcome.

        A caller that no longer wants the outcome cancels the future. This waits for a place in the queue if the policy
        is `block` or the frame is patient; otherwise it returns at once. Patient frames take at most half of the queue,
        or one place, so that others come through.
        """
        self._counts["received"] += 1
        ticket = _Ticket(frame, asyncio.get_running_loop().create_future())
        if frame.n_bytes > self.limits.max_bytes:
            return self._drop(ticket, Reason.TOO_LARGE, f"{frame.n_bytes} bytes are more than the whole queue holds")
        if self.limits.policy == "block" or frame.patient:
            await self._wait_for_room(ticket)
        if self._closing:
            return self._drop(ticket, Reason.SHUTDOWN, "the receiver is closing")
        if not self._may_enter(frame):
            return self._drop(ticket, Reason.QUEUE_FULL, f"{self._waiting} frames wait already: send fewer")
        while not self._fits(frame):
            victim = self._oldest_of_the_busiest(frame.sender)
            self._drop(victim, Reason.SUPERSEDED, "newer frames took its place in the queue")
        self._queues.setdefault(frame.sender, deque()).append(ticket)
        self._waiting += 1
        self._waiting_bytes += frame.n_bytes
        self._patient += frame.patient
        self._patient_bytes += frame.patient * frame.n_bytes
        self._ready.set()
        return ticket.outcome

    def drop(self, frame: Frame, reason: Reason, text: str) -> Outcome:
        """Drop a frame without putting it into the queue, count it, and return its outcome."""
        self._counts["received"] += 1
        return self._drop(_Ticket(frame, asyncio.get_running_loop().create_future()), reason, text).result()

    async def _wait_for_room(self, ticket: _Ticket) -> None:
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
        limits = self.limits
        return self._waiting < limits.max_frames and self._waiting_bytes + frame.n_bytes <= limits.max_bytes

    def _may_enter(self, frame: Frame) -> bool:
        """Whether a frame has a place in the queue, or gets one for which the policy drops others."""
        limits, share = self.limits, 2 if frame.patient and self._patient else 1
        beside_patient = (
            self._patient < limits.max_frames // share
            and self._patient_bytes + frame.n_bytes <= limits.max_bytes // share
        )
        return beside_patient and (limits.policy == "drop-oldest" or self._fits(frame))

    def _oldest_of_the_busiest(self, sender: str) -> _Ticket:
        """Remove the frame that makes room from the queue; among equally busy senders, one of `sender`."""
        droppable = [name for name, queue in self._queues.items() if not queue[0].frame.patient]
        busiest = max(droppable, key=lambda name: (len(self._queues[name]), name == sender))
        return self._pop(busiest)

    def _pop(self, sender: str) -> _Ticket:
        queue = self._queues[sender]
        ticket = queue.popleft()
        if not queue:
            del self._queues[sender]
        self._waiting -= 1
        self._waiting_bytes -= ticket.frame.n_bytes
        self._patient -= ticket.frame.patient
        self._patient_bytes -= ticket.frame.patient * ticket.frame.n_bytes
        return ticket

    def _drop(self, ticket: _Ticket, reason: Reason, text: str) -> asyncio.Future[Outcome]:
        self._finish(ticket, Dropped(reason, text, ticket.frame.number))
        return ticket.outcome

    def _finish(self, ticket: _Ticket, outcome: Outcome, perceived: Perceived | None = None) -> None:
        """Count an outcome, call the observers with it, and complete the frame's future."""
        if isinstance(outcome, Answer):
            self._counts["answered"] += 1
        else:
            self._dropped[outcome.reason] += 1
        for observer in self.observers:
            try:
                observer(ticket.frame, outcome, perceived)
            except Exception:  # an observer must not stop the engine
                log.exception("an observer failed on frame %d", ticket.frame.number)
        if not ticket.outcome.done():
            ticket.outcome.set_result(outcome)

    def _next_batch(self) -> list[_Ticket]:
        """Return the frames whose turn it is, one sender after the other; drop frames that are too old or unwanted."""
        batch: list[_Ticket] = []
        while self._queues and len(batch) < self.limits.max_batch:
            sender = next(iter(self._queues))
            ticket = self._pop(sender)
            if sender in self._queues:
                self._queues.move_to_end(sender)
            limits_ms = (0.0 if ticket.frame.patient else self.limits.deadline_ms, ticket.frame.deadline_ms)
            deadline_ms = min((limit_ms for limit_ms in limits_ms if limit_ms > 0), default=0.0)
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
                results = await loop.run_in_executor(self._thread, self._perceive, frames)
            finally:
                self._working = 0
            for ticket, (outcome, perceived) in zip(batch, results, strict=True):
                self._finish(ticket, outcome, perceived)

    def _perceive(self, frames: list[Frame]) -> list[tuple[Outcome, Perceived | None]]:
        """Run the networks on a batch and code the answers; called in the engine's thread."""
        began_s = time.monotonic()
        try:
            results = self.perception([(frame.stream, frame.incomplete) for frame in frames])
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
            outcomes.append((_answer(frame, result), result))
        return outcomes

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop the engine: take no more frames, work on those in the queue for at most `grace_s`, and drop the rest."""
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


def _answer(frame: Frame, perceived: Perceived) -> Answer:
    """Return the answer to a frame; sets the times of coding it and of the whole."""
    classes_HW, stages = perceived.classes_uint8_HW, perceived.stages
    coding_s = time.perf_counter()
    class_map = encode_class_map(classes_HW, frame.coding)
    class_pixels = np.bincount(classes_HW.reshape(-1)).tolist()
    stages.answer_ms = 1000.0 * (time.perf_counter() - coding_s)
    stages.total_ms = 1000.0 * (time.monotonic() - frame.arrived_s)
    height, width = classes_HW.shape
    return Answer(
        number=frame.number,
        height=height,
        width=width,
        coding=frame.coding,
        class_map=class_map,
        class_pixels=tuple(class_pixels),
        stages=stages,
        stream_bytes=len(frame.stream),
        concealed_pixels=0 if perceived.concealed_HW is None else int(perceived.concealed_HW.sum()),
    )
