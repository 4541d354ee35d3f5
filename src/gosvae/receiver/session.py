"""Stream of one sender in the gRPC service: the introduction, then frames in and answers out, within limits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from gosvae.codecs.sequence.format import SessionHeader, is_session
from gosvae.errors import BitstreamError
from gosvae.protocol.frames import Dropped, Frame, Outcome, Reason
from gosvae.protocol.messages import coding_of, import_grpc, outcome_message, pb, printable
from gosvae.receiver.connections import address_of
from gosvae.receiver.engine import Engine
from gosvae.receiver.limits import ServiceLimits
from gosvae.receiver.strangers import LimitedLog
from gosvae.wire import CLASS_MAP_CODINGS, VIDEO_VERSION

log = logging.getLogger(__name__)

MAX_TEXT_CHARACTERS = 500
"""Greatest number of characters of a reason that is sent to a client."""
_HOUR_MS = 3.6e6


class CallRefusal(StrEnum):
    """Reason for which a call is refused or ended by the receiver; frames have `Reason`."""

    NO_TOKEN = "no-token"
    WRONG_TOKEN = "wrong-token"
    TOO_MANY_STREAMS = "too-many-streams"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    NO_HELLO = "no-hello"
    CODING = "coding"
    FOREIGN = "foreign"
    SLOW_READER = "slow-reader"
    GAVE_WAY = "gave-way"


@dataclass(frozen=True)
class ServiceCounters:
    """Numbers of streams and messages; `EngineCounters` has the numbers of frames.

    Attributes:
        streams: number of streams that were opened.
        open_streams: number of streams that are open now.
        refused: number of calls that were refused, by `CallRefusal`.
        malformed: number of messages that are not of the protocol.
        sent: number of outcomes of frames that were sent.
        undelivered: number of outcomes of frames that were not sent, because the client had left or did not read.
    """

    streams: int
    open_streams: int
    refused: Mapping[CallRefusal, int]
    malformed: int
    sent: int
    undelivered: int


@dataclass
class SenderState:
    """State of a connected sender, for the live page.

    Attributes:
        sender: the engine's name for the sender.
        name: name that the sender gives itself, printable.
        peer: address of the sender, as gRPC writes it.
        round_trip_ms: time from sending a frame to its answer, by the sender's clock; 0 if it is not known yet.
        frames: number of frames that it sent.
        octets: number of bytes of its streams.
    """

    sender: str
    name: str
    peer: str
    round_trip_ms: float = 0.0
    frames: int = 0
    octets: int = 0


@dataclass
class Ledger:
    """Counts and senders of all streams of a service.

    Attributes:
        counts: numbers of `streams`, `malformed`, `sent` and `undelivered`; see `ServiceCounters`.
        refused: number of calls that were refused, by `CallRefusal`.
        senders: senders that are connected and have introduced themselves, by the engine's names for them.
        open_streams: number of streams that are open now.
        limited_log: log of refused calls.
    """

    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[CallRefusal] = field(default_factory=Counter)
    senders: dict[str, SenderState] = field(default_factory=dict)
    open_streams: int = 0
    limited_log: LimitedLog = field(default_factory=lambda: LimitedLog(log))

    def refuse(self, reason: CallRefusal, peer: str) -> None:
        """Count a call that is refused, and log it unless its source address has enough lines."""
        self.refused[reason] += 1
        address = address_of(peer)
        self.limited_log.refused(peer if address is None else address.host, reason)

    @property
    def counters(self) -> ServiceCounters:
        """Numbers of streams and messages so far."""
        return ServiceCounters(
            streams=self.counts["streams"],
            open_streams=self.open_streams,
            refused=dict(self.refused),
            malformed=self.counts["malformed"],
            sent=self.counts["sent"],
            undelivered=self.counts["undelivered"],
        )


@dataclass(eq=False)
class Session:
    """The stream of one sender.

    Attributes:
        engine: engine that takes the frames.
        limits: limits on the client.
        ledger: counts of the service.
        context: context of the call, from gRPC.
        sender: the engine's name for the sender.
        peer: address of the sender, as gRPC writes it.
        coding: coding of the class maps that the client asked for.
        patient: whether the client waits for the answer to every frame.
        results: whether the client asked for the results of experts of other tasks.
        outbox: messages that wait to be written.
        pending: futures of the frames without an outcome.
        changed: event that is set if the writer may have something to do.
        room: event that is set if the reader may read again.
        ended: whether no more frames come.
        malformed: number of malformed messages.
        state: state of the sender, once it has introduced itself.
        reader: task that reads frames.
        farewell: gRPC status and text that the call ends with; None if it ends well.
        closing: whether the receiver is closing.
        video_hw: size of the frames of a video, once a key frame without a container has come.
        used_s: time of the latest frame, or of the start of the stream, on the clock of `time.monotonic`.
        grpc: the module `grpc`.
    """

    engine: Engine
    limits: ServiceLimits
    ledger: Ledger
    context: Any
    sender: str
    peer: str
    coding: Any = "zlib"
    patient: bool = False
    results: bool = False
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
    video_hw: tuple[int, int] | None = None
    used_s: float = field(default_factory=time.monotonic)
    grpc: Any = field(default_factory=import_grpc)

    async def run(self) -> None:
        """Let the sender introduce itself, then read frames and write answers until both are done."""
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
        """Take no more frames, because the receiver is closing; frames already taken are still answered."""
        self.closing = True
        if self.reader is not None:
            self.reader.cancel()

    def give_way(self) -> None:
        """End the stream, which has had no frame for a long time, because another client needs its place."""
        self.ledger.refuse(CallRefusal.GAVE_WAY, self.peer)
        self.farewell = self.grpc.StatusCode.UNAVAILABLE, "all streams are open, and this one had no frame"
        if self.reader is not None:
            self.reader.cancel()

    def leave(self) -> None:
        """Cancel the frames that are not answered and discard the outbox, because the stream has ended."""
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
            self.ledger.refuse(CallRefusal.NO_HELLO, self.peer)
            await self.context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the first message, a Hello, did not come")
        message = None if data is grpc.aio.EOF else _parse(data)
        if message is None or message.WhichOneof("kind") != "hello":
            self.ledger.refuse(CallRefusal.NO_HELLO, self.peer)
            await self.context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a Hello")
        assert message is not None
        hello, own = message.hello, self.engine.perception.fingerprint
        coding = coding_of(hello.coding)
        if coding is None:
            self.ledger.refuse(CallRefusal.CODING, self.peer)
            known = " or ".join(f"{name} ({number})" for name, number in CLASS_MAP_CODINGS.items())
            text = f"coding {hello.coding} of class maps is not known to this receiver: ask for {known}"
            await self.context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        assert coding is not None
        if hello.codec_fingerprint and own and hello.codec_fingerprint != own:
            self.ledger.refuse(CallRefusal.FOREIGN, self.peer)
            given = hello.codec_fingerprint[:8].hex()
            text = f"the sender's codec has the fingerprint {given}, this receiver's {own.hex()} ({self._codec_name})"
            await self.context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{text}: send with that one")
        self.coding, self.patient, self.results = coding, hello.patient, hello.results
        self.state = SenderState(self.sender, printable(hello.name), self.peer)
        self.ledger.senders[self.sender] = self.state
        log.info("%s is %r from %s", self.sender, self.state.name, self.peer)
        await self.context.write(self._welcome())

    def _welcome(self) -> bytes:
        """Return the first message to a client: the codec, the expert and the limits of this receiver."""
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
                video=VIDEO_VERSION if perception.takes_videos else 0,
                experts=[
                    pb().Expert(name=name, task=task.name, class_names=task.info.class_names)
                    for name, task in perception.judges.tasks.items()
                ],
            )
        )
        data: bytes = message.SerializeToString()
        return data

    @property
    def _codec_name(self) -> str:
        return self.engine.perception.codec.name

    async def _read(self) -> None:
        """Read frames until the client has no more."""
        limits = self.limits
        blocking = self.patient or self.engine.limits.policy == "block"
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
            self._answer(Dropped(Reason.MALFORMED, "the message is not a Frame"))
            if self.malformed >= limits.max_malformed:
                text = f"{self.malformed} malformed messages"
                await self.context.abort(self.grpc.StatusCode.INVALID_ARGUMENT, text)
            return
        frame, state = message.frame, self.state
        assert state is not None
        stream = self._contained(frame.video) if frame.video else frame.stream
        carried_bytes = len(frame.video) if frame.video else 0
        state.frames, state.octets = state.frames + 1, state.octets + (carried_bytes or len(frame.stream))
        self.used_s = time.monotonic()
        if 0 < frame.round_trip_ms < _HOUR_MS:
            state.round_trip_ms = frame.round_trip_ms
        arrived = Frame(
            sender=self.sender,
            number=frame.number,
            stream=stream,
            coding=self.coding,
            deadline_ms=frame.deadline_ms,
            original=frame.original,
            patient=self.patient,
            carried_bytes=carried_bytes,
            results=self.results,
        )
        if arrived.n_bytes > limits.max_frame_bytes:
            text = f"a frame of {arrived.n_bytes} bytes or more: this receiver takes {limits.max_frame_bytes}"
            self._answer(self.engine.drop(arrived, Reason.TOO_LARGE, text))
        elif frame.video and self.video_hw is None:
            text = "a frame of a video before its session: the sequence is decoded from a key frame on"
            self._answer(self.engine.drop(arrived, Reason.INCOMPLETE, text))
        elif len(self.pending) >= limits.max_pending_frames:
            text = f"{len(self.pending)} frames of this sender have no answer yet"
            self._answer(self.engine.drop(arrived, Reason.QUEUE_FULL, text))
        else:
            outcome = await self.engine.submit(arrived)
            self.pending.add(outcome)
            outcome.add_done_callback(self._finished)

    def _contained(self, data: bytes) -> bytes:
        """Return a frame of a video in its container, which has the size of the latest key frame of this stream."""
        if is_session(data):
            try:
                header, _ = SessionHeader.unpack(data)
            except BitstreamError:
                return data
            self.video_hw = header.height, header.width
        return data if self.video_hw is None else self.engine.perception.contained(data, *self.video_hw)

    def _finished(self, future: asyncio.Future[Outcome]) -> None:
        """Put the outcome of a frame into the outbox; called when its future is done."""
        self.pending.discard(future)
        self.room.set()
        if not future.cancelled():
            self._answer(future.result())

    def _answer(self, outcome: Outcome) -> None:
        """Put an outcome into the outbox; if that is full, because the client reads too slowly, discard the oldest."""
        if isinstance(outcome, Dropped):
            outcome = replace(outcome, text=outcome.text[:MAX_TEXT_CHARACTERS])
        if len(self.outbox) >= 2 * self.limits.max_pending_frames:
            self.outbox.popleft()
            self.ledger.counts["undelivered"] += 1
        self.outbox.append(outcome_message(outcome).SerializeToString())
        self.changed.set()

    async def _write(self) -> None:
        """Send the messages in the outbox until no more can come."""
        while True:
            while self.outbox:
                data = self.outbox.popleft()
                self.room.set()
                try:
                    async with asyncio.timeout(self.limits.write_s):
                        await self.context.write(data)
                except TimeoutError:
                    self.ledger.counts["undelivered"] += 1
                    self.ledger.refuse(CallRefusal.SLOW_READER, self.peer)
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
    """Return the message in the bytes; None if they are malformed."""
    message = pb().FromSender()
    try:
        message.ParseFromString(data)
    except Exception:  # protobuf's DecodeError, and other errors of its parser
        return None
    return message
