"""One sender's stream in the gRPC service: introduction, frames in, answers out, each within its limits."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from gosvae.errors import ConfigError
from gosvae.link.engine import Answer, Engine, Frame, Outcome
from gosvae.link.messages import CODINGS, import_grpc, pb, printable, refusal_message, result_message
from gosvae.link.perception import Reason

log = logging.getLogger(__name__)

LONGEST_REFUSAL = 500


@dataclass(frozen=True)
class ServiceLimits:
    """What clients may ask of the service.

    Attributes:
        max_frame_bytes: stream and original of a frame.
        max_streams: open at once, of all clients.
        max_pending_frames: of one sender without an answer; then its frames are refused or, with the policy `block`,
            not read.
        max_malformed: messages that are none, after which a stream is ended.
        hello_s: how long a client may take to introduce itself.
        write_s: how long a client may take to read an answer before its stream is ended.
        keepalive_s: how often an idle connection is asked whether it is alive.
        grace_s: how long streams have to end when the service is closed.

    Raises:
        ConfigError: a limit that lets nothing through.
    """

    max_frame_bytes: int = 2**20
    max_streams: int = 256
    max_pending_frames: int = 32
    max_malformed: int = 100
    hello_s: float = 10.0
    write_s: float = 30.0
    keepalive_s: float = 20.0
    grace_s: float = 5.0

    def __post_init__(self) -> None:
        if min(self.max_frame_bytes, self.max_streams, self.max_pending_frames, self.max_malformed) < 1:
            raise ConfigError("the limits on frame bytes, streams, pending frames and malformed messages start at 1")


@dataclass(frozen=True)
class ServiceCounters:
    """What happened on the wire; `EngineCounters` has what became of frames.

    Attributes:
        streams: that were opened.
        open_streams: that are now.
        refused: calls that were turned away, by why: `no-token`, `wrong-token`, `too-many-streams`, `no-hello`,
            `coding`, `foreign`.
        malformed: messages that are none.
        sent: answers and refusals that went out.
        undelivered: answers and refusals that did not: the client had left, or did not read.
    """

    streams: int
    open_streams: int
    refused: dict[str, int]
    malformed: int
    sent: int
    undelivered: int


@dataclass
class SenderState:
    """What is known of a connected sender, for those who watch.

    Attributes:
        sender: the engine's name of it.
        name: what it calls itself, printable.
        round_trip_ms: from sending to the answer, by the sender's clock; 0: not known yet.
    """

    sender: str
    name: str
    peer: str
    round_trip_ms: float = 0.0
    frames: int = 0
    octets: int = 0


@dataclass
class Ledger:
    """What all streams of a service write into.

    Attributes:
        counts: `streams`, `malformed`, `sent`, `undelivered`: see `ServiceCounters`.
        turned_away: calls, by why.
        senders: that are connected and introduced, by the engine's names of them.
        open_streams: that are now.
    """

    counts: Counter[str] = field(default_factory=Counter)
    turned_away: Counter[str] = field(default_factory=Counter)
    senders: dict[str, SenderState] = field(default_factory=dict)
    open_streams: int = 0

    def refused(self, why: str, peer: str) -> None:
        """Count and log a client that was turned away."""
        self.turned_away[why] += 1
        log.warning("refused %s: %s", peer, why)

    @property
    def counters(self) -> ServiceCounters:
        """What happened so far."""
        counts = self.counts
        return ServiceCounters(
            *(counts["streams"], self.open_streams, dict(self.turned_away), counts["malformed"]),
            *(counts["sent"], counts["undelivered"]),
        )


@dataclass(eq=False)
class Session:
    """One sender's stream.

    Attributes:
        engine: does the work.
        limits: of the client.
        ledger: of the service.
        context: gRPC's, of the call.
        sender: the engine's name of it.
        coding: of the class maps, as the client asked.
        outbox: messages that wait to be written.
        pending: frames without an outcome.
        farewell: the status and the words that the call is to end with, if not well.
    """

    engine: Engine
    limits: ServiceLimits
    ledger: Ledger
    context: Any
    sender: str
    peer: str
    coding: Any = "zlib"
    outbox: deque[bytes] = field(default_factory=deque)
    pending: set[asyncio.Future[Outcome]] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    malformed: int = 0
    state: SenderState | None = None
    reader: asyncio.Task[None] | None = None
    farewell: tuple[Any, str] | None = None
    closing: bool = False
    grpc: Any = field(default_factory=import_grpc)

    async def run(self) -> None:
        """Introduction, then reading and writing side by side until both are done."""
        await self._introduce()
        writer = asyncio.create_task(self._write())
        reader = self.reader = asyncio.create_task(self._read())
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if self.farewell is not None:
                return
            if reader.cancelled():  # the receiver is closing
                self.ended = True
                self.changed.set()
            elif reader.done():
                reader.result()  # raises what it raised
            await writer
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
        if self.closing and self.farewell is None:
            self.farewell = self.grpc.StatusCode.UNAVAILABLE, "the receiver is closing"

    def read_no_more(self) -> None:
        """The receiver is closing: take no more frames; those that were taken are answered."""
        self.closing = True
        if self.reader is not None:
            self.reader.cancel()

    def leave(self) -> None:
        """The stream has ended: what is still on its way is for nobody."""
        self.ledger.counts["undelivered"] += len(self.outbox)
        self.outbox.clear()
        for future in self.pending:
            future.remove_done_callback(self._finished)
            future.cancel()
        self.pending.clear()

    async def _introduce(self) -> None:
        grpc = self.grpc
        try:
            async with asyncio.timeout(self.limits.hello_s):
                data = await self.context.read()
        except TimeoutError:
            self.ledger.refused("no-hello", self.peer)
            await self.context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the first message, a Hello, did not come")
        message = None if data is grpc.aio.EOF else _parse(data)
        if message is None or message.WhichOneof("kind") != "hello":
            self.ledger.refused("no-hello", self.peer)
            await self.context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a Hello")
        assert message is not None
        hello, own = message.hello, self.engine.perception.fingerprint
        if hello.coding not in CODINGS:
            self.ledger.refused("coding", self.peer)
            text = f"coding {hello.coding} of class maps is not known to this receiver: ask for zlib (4) or none (3)"
            await self.context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        if hello.codec_fingerprint and own and hello.codec_fingerprint != own:
            self.ledger.refused("foreign", self.peer)
            given = hello.codec_fingerprint[:8].hex()
            text = f"the sender's codec has the fingerprint {given}, this receiver's {own.hex()} ({self._codec_name})"
            await self.context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{text}: send with that one")
        self.coding = CODINGS[hello.coding]
        self.state = SenderState(self.sender, printable(hello.name), self.peer)
        self.ledger.senders[self.sender] = self.state
        log.info("%s is %r from %s", self.sender, self.state.name, self.peer)
        await self.context.write(self._welcome())

    def _welcome(self) -> bytes:
        """What a client is told first."""
        perception = self.engine.perception
        message = pb().FromReceiver(
            welcome=pb().Welcome(
                codec=perception.codec.name,
                codec_fingerprint=perception.fingerprint,
                expert=perception.expert_name,
                class_names=perception.class_names,
                max_frame_bytes=self.limits.max_frame_bytes,
                max_pending_frames=self.limits.max_pending_frames,
                policy=self.engine.limits.policy,
                deadline_ms=int(self.engine.limits.deadline_ms),
            )
        )
        data: bytes = message.SerializeToString()
        return data

    @property
    def _codec_name(self) -> str:
        return self.engine.perception.codec.name

    async def _read(self) -> None:
        """Take frames until the client has no more."""
        limits = self.limits
        blocking = self.engine.limits.policy == "block"
        while True:
            while blocking and len(self.pending) + len(self.outbox) >= limits.max_pending_frames:
                self.room.clear()
                await self.room.wait()
            data = await self.context.read()
            if data is self.grpc.aio.EOF:
                break
            await self._take(data)
        self.ended = True
        self.changed.set()

    async def _take(self, data: bytes) -> None:
        limits = self.limits
        message = _parse(data)
        if message is None or message.WhichOneof("kind") != "frame":
            self.malformed += 1
            self.ledger.counts["malformed"] += 1
            self._post(refusal_message(0, Reason.MALFORMED, "the message is no Frame").SerializeToString())
            if self.malformed >= limits.max_malformed:
                text = f"{self.malformed} messages that are no Frame"
                await self.context.abort(self.grpc.StatusCode.INVALID_ARGUMENT, text)
            return
        frame, state = message.frame, self.state
        assert state is not None
        state.frames, state.octets = state.frames + 1, state.octets + len(frame.stream)
        if 0 < frame.round_trip_ms < 3.6e6:
            state.round_trip_ms = frame.round_trip_ms
        arrived = Frame(
            self.sender,
            frame.number,
            frame.stream,
            coding=self.coding,
            deadline_ms=frame.deadline_ms,
            original=frame.original,
        )
        if arrived.n_bytes > limits.max_frame_bytes:
            text = f"a frame of {arrived.n_bytes} bytes: this receiver takes {limits.max_frame_bytes}"
            self._answer(self.engine.refuse(arrived, Reason.TOO_LARGE, text))
        elif len(self.pending) >= limits.max_pending_frames:
            text = f"{len(self.pending)} frames of this sender have no answer yet"
            self._answer(self.engine.refuse(arrived, Reason.QUEUE_FULL, text))
        else:
            outcome = await self.engine.submit(arrived)
            self.pending.add(outcome)
            outcome.add_done_callback(self._finished)

    def _finished(self, future: asyncio.Future[Outcome]) -> None:
        """The engine has an outcome: it goes into the outbox."""
        self.pending.discard(future)
        self.room.set()
        if not future.cancelled():
            self._answer(future.result())

    def _answer(self, outcome: Outcome) -> None:
        """Put an outcome into the outbox."""
        if isinstance(outcome, Answer):
            message = result_message(outcome)
        else:
            trouble = outcome.trouble
            message = refusal_message(outcome.frame.number, trouble.reason, trouble.text[:LONGEST_REFUSAL])
        self._post(message.SerializeToString())

    def _post(self, data: bytes) -> None:
        """Put a message into the outbox; where that is full the oldest goes: its reader is too slow."""
        if len(self.outbox) >= 2 * self.limits.max_pending_frames:
            self.outbox.popleft()
            self.ledger.counts["undelivered"] += 1
        self.outbox.append(data)
        self.changed.set()

    async def _write(self) -> None:
        """Send what is in the outbox until nothing more can come."""
        while True:
            while self.outbox:
                data = self.outbox.popleft()
                self.room.set()
                try:
                    async with asyncio.timeout(self.limits.write_s):
                        await self.context.write(data)
                except TimeoutError:
                    self.ledger.counts["undelivered"] += 1
                    self.ledger.refused("slow-reader", self.peer)
                    text = f"an answer was not read for {self.limits.write_s:g} s"
                    self.farewell = self.grpc.StatusCode.DEADLINE_EXCEEDED, text
                    return
                except BaseException:
                    self.ledger.counts["undelivered"] += 1
                    raise
                self.ledger.counts["sent"] += 1
            if self.ended and not self.pending:
                return
            self.changed.clear()
            if self.outbox or (self.ended and not self.pending):
                continue
            await self.changed.wait()


def _parse(data: bytes) -> Any:
    """The message, or None where the bytes are none."""
    message = pb().FromSender()
    try:
        message.ParseFromString(data)
    except Exception:  # protobuf's DecodeError, and what else its parser has in store
        return None
    return message
