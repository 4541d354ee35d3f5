"""The gRPC service in front of the engine: many senders, each with a stream of frames up and of answers down.

Nothing that a client does can take more than its share: bytes of a message, streams, frames without an answer, answers
that it does not read, and time are limited. `docs/service.md` explains the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from gosvae.errors import ConfigError, LinkError
from gosvae.link.engine import Answer, Engine, Frame, Outcome
from gosvae.link.messages import (
    CODINGS,
    METHOD,
    SERVICE,
    import_grpc,
    pb,
    printable,
    refusal_message,
    result_message,
)
from gosvae.link.perception import Reason
from gosvae.link.security import Endpoint, ServerTls, read_pem, token_agrees

log = logging.getLogger(__name__)

MESSAGE_OVERHEAD_BYTES = 65536
"""By how much a message may be longer than the frame in it before gRPC itself ends the stream."""
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
            `foreign`.
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


class LinkService:
    """Listens for senders. `async with LinkService(engine, endpoint, ...) as service`.

    Args:
        engine: does the work.
        endpoint: where to listen; port 0 for any that is free.
        limits: of clients.
        tls: None: not encrypted.
        token: that clients must know; None: none.

    Attributes:
        senders: that are connected and introduced, by the engine's names of them.
    """

    def __init__(
        self,
        engine: Engine,
        endpoint: Endpoint,
        *,
        limits: ServiceLimits | None = None,
        tls: ServerTls | None = None,
        token: str | None = None,
    ) -> None:
        self.engine, self.endpoint = engine, endpoint
        self.limits = limits or ServiceLimits()
        self.senders: dict[str, SenderState] = {}
        self._tls, self._token = tls, token
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._ids = itertools.count(1)
        self._open = 0
        self._sessions: set[_Session] = set()
        self.closing = False
        self._grpc = import_grpc()
        self._server: Any = None
        self._health: Any = None

    @property
    def counters(self) -> ServiceCounters:
        """What happened so far."""
        counts = self._counts
        return ServiceCounters(
            *(counts["streams"], self._open, dict(self._refused), counts["malformed"]),
            *(counts["sent"], counts["undelivered"]),
        )

    def refused(self, why: str, peer: str) -> None:
        """Count and log a client that was turned away."""
        self._refused[why] += 1
        log.warning("refused %s: %s", peer, why)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen; `endpoint` has the port then.

        Raises:
            LinkError: the address cannot be listened on.
            ConfigError: files of TLS that cannot be used.
            MissingDependencyError: grpcio is not installed.
        """
        grpc, limits = self._grpc, self.limits
        self._server = grpc.aio.server(
            interceptors=[_token_check(grpc, self._token, self.refused)] if self._token else [],
            options=[
                ("grpc.max_receive_message_length", limits.max_frame_bytes + MESSAGE_OVERHEAD_BYTES),
                ("grpc.max_concurrent_streams", limits.max_streams),
                ("grpc.max_metadata_size", 8192),
                ("grpc.keepalive_time_ms", int(1000 * limits.keepalive_s)),
                ("grpc.keepalive_timeout_ms", int(500 * limits.keepalive_s)),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", int(500 * limits.keepalive_s)),
                ("grpc.server_handshake_timeout_ms", 10_000),
                ("grpc.so_reuseport", 0),
            ],
        )
        handler = grpc.stream_stream_rpc_method_handler(self._connect)  # raw bytes: what is malformed is ours to answer
        method = METHOD.rpartition("/")[2]
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {method: handler}),))
        await self._add_health()
        try:
            port = (
                self._server.add_insecure_port(str(self.endpoint))
                if self._tls is None
                else self._server.add_secure_port(str(self.endpoint), self._credentials(self._tls))
            )
        except RuntimeError as error:
            raise LinkError(f"cannot listen on {self.endpoint}: {_reason(error)}; take another port") from None
        self.endpoint = Endpoint(self.endpoint.host, port)
        await self._server.start()

    async def _add_health(self) -> None:
        """The standard health service; it needs no token, and tells nothing but whether the receiver serves."""
        try:
            from grpc_health.v1 import health, health_pb2, health_pb2_grpc
        except ImportError:
            log.warning("no health service: install grpcio-health-checking")
            return
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def _credentials(self, tls: ServerTls) -> Any:
        tls.check()
        authority = None if tls.client_authority is None else read_pem(tls.client_authority)
        return self._grpc.ssl_server_credentials(
            [(read_pem(tls.key), read_pem(tls.certificate))],
            root_certificates=authority,
            require_client_auth=authority is not None,
        )

    async def close(self) -> None:
        """Say so to health checks, read no more frames, answer those that are there, end; within the grace."""
        if self._server is None:
            return
        self.closing = True
        if self._health is not None:
            await self._health.enter_graceful_shutdown()
        for session in self._sessions:
            session.read_no_more()
        await self._server.stop(self.limits.grace_s)
        self._server = None

    async def _connect(self, _: Any, context: Any) -> None:
        """One stream, from Hello to its end."""
        peer = str(context.peer())
        if self._open >= self.limits.max_streams:
            self.refused("too-many-streams", peer)
            text = f"{self._open} streams are open, which is all that this receiver takes: try again later"
            await context.abort(self._grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._open += 1
        self._counts["streams"] += 1
        session = _Session(self, context, f"grpc:{next(self._ids)}", peer)
        self._sessions.add(session)
        try:
            try:
                await session.run()
            finally:
                self._sessions.discard(session)
                self.senders.pop(session.sender, None)
                session.leave()
            if session.farewell is not None:
                await context.abort(*session.farewell)  # may take as long as the client: gRPC sends it after the rest
        finally:
            self._open -= 1

    def welcome(self) -> bytes:
        """What a client is told first."""
        engine, perception = self.engine, self.engine.perception
        message = pb().FromReceiver(
            welcome=pb().Welcome(
                codec=perception.codec.name,
                codec_fingerprint=perception.fingerprint,
                expert=perception.expert_name,
                class_names=perception.class_names,
                max_frame_bytes=self.limits.max_frame_bytes,
                max_pending_frames=self.limits.max_pending_frames,
                policy=engine.limits.policy,
                deadline_ms=int(engine.limits.deadline_ms),
            )
        )
        data: bytes = message.SerializeToString()
        return data

    def count(self, what: str, n: int = 1) -> None:
        """Add to a counter."""
        self._counts[what] += n


@dataclass(eq=False)
class _Session:
    """One sender's stream."""

    service: LinkService
    context: Any
    sender: str
    peer: str
    coding: Any = "png"
    outbox: deque[bytes] = field(default_factory=deque)
    pending: set[asyncio.Future[Outcome]] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    malformed: int = 0
    state: SenderState | None = None
    reader: asyncio.Task[None] | None = None
    farewell: tuple[Any, str] | None = None

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
        if self.service.closing and self.farewell is None:
            self.farewell = self.service._grpc.StatusCode.UNAVAILABLE, "the receiver is closing"

    def read_no_more(self) -> None:
        """Take no more frames; those that were taken are answered."""
        if self.reader is not None:
            self.reader.cancel()

    def leave(self) -> None:
        """The stream has ended: what is still on its way is for nobody."""
        self.service.count("undelivered", len(self.outbox))
        self.outbox.clear()
        for future in self.pending:
            future.remove_done_callback(self._finished)
            future.cancel()
        self.pending.clear()

    async def _introduce(self) -> None:
        grpc, service = self.service._grpc, self.service
        try:
            async with asyncio.timeout(service.limits.hello_s):
                data = await self.context.read()
        except TimeoutError:
            service.refused("no-hello", self.peer)
            await self.context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the first message, a Hello, did not come")
        message = None if data is grpc.aio.EOF else _parse(data)
        if message is None or message.WhichOneof("kind") != "hello" or message.hello.coding not in CODINGS:
            service.refused("no-hello", self.peer)
            await self.context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a Hello")
        assert message is not None
        hello, own = message.hello, service.engine.perception.fingerprint
        if hello.codec_fingerprint and own and hello.codec_fingerprint != own:
            service.refused("foreign", self.peer)
            given = hello.codec_fingerprint[:8].hex()
            text = f"the sender's codec has the fingerprint {given}, this receiver's {own.hex()} ({self._codec_name})"
            await self.context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{text}: send with that one")
        self.coding = CODINGS[hello.coding]
        self.state = SenderState(self.sender, printable(hello.name), self.peer)
        service.senders[self.sender] = self.state
        log.info("%s is %r from %s", self.sender, self.state.name, self.peer)
        await self.context.write(service.welcome())

    @property
    def _codec_name(self) -> str:
        return self.service.engine.perception.codec.name

    async def _read(self) -> None:
        """Take frames until the client has no more."""
        service, limits = self.service, self.service.limits
        blocking = service.engine.limits.policy == "block"
        while True:
            while blocking and len(self.pending) + len(self.outbox) >= limits.max_pending_frames:
                self.room.clear()
                await self.room.wait()
            data = await self.context.read()
            if data is service._grpc.aio.EOF:
                break
            await self._take(data)
        self.ended = True
        self.changed.set()

    async def _take(self, data: bytes) -> None:
        service, limits = self.service, self.service.limits
        message = _parse(data)
        if message is None or message.WhichOneof("kind") != "frame":
            self.malformed += 1
            service.count("malformed")
            self._post(refusal_message(0, Reason.MALFORMED, "the message is no Frame").SerializeToString())
            if self.malformed >= limits.max_malformed:
                text = f"{self.malformed} messages that are no Frame"
                await self.context.abort(service._grpc.StatusCode.INVALID_ARGUMENT, text)
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
            self._answer(service.engine.refuse(arrived, Reason.TOO_LARGE, text))
        elif len(self.pending) >= limits.max_pending_frames:
            text = f"{len(self.pending)} frames of this sender have no answer yet"
            self._answer(service.engine.refuse(arrived, Reason.QUEUE_FULL, text))
        else:
            outcome = await service.engine.submit(arrived)
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
        if len(self.outbox) >= 2 * self.service.limits.max_pending_frames:
            self.outbox.popleft()
            self.service.count("undelivered")
        self.outbox.append(data)
        self.changed.set()

    async def _write(self) -> None:
        """Send what is in the outbox until nothing more can come."""
        service = self.service
        while True:
            while self.outbox:
                data = self.outbox.popleft()
                self.room.set()
                try:
                    async with asyncio.timeout(service.limits.write_s):
                        await self.context.write(data)
                except TimeoutError:
                    service.count("undelivered")
                    service.refused("slow-reader", self.peer)
                    text = f"an answer was not read for {service.limits.write_s:g} s"
                    self.farewell = service._grpc.StatusCode.DEADLINE_EXCEEDED, text
                    return
                except BaseException:
                    service.count("undelivered")
                    raise
                service.count("sent")
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


def _reason(error: Exception) -> str:
    """gRPC's words on a port, shortened."""
    text = str(error)
    with contextlib.suppress(IndexError):
        text = text.split("errors: ")[-1].splitlines()[0]
    return "it is in use or not ours" if "Failed to bind" in text else text


def _token_check(grpc: Any, token: str, refused: Callable[[str, str], None]) -> Any:
    """An interceptor that lets calls through that carry the token, and health checks."""

    class TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc]
        """Made here because its base is imported late."""

        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            """As gRPC calls it."""
            if details.method.startswith("/grpc.health.v1.Health/"):
                return await continuation(details)
            given = next((value for key, value in details.invocation_metadata if key == "authorization"), None)
            scheme, _, word = (given if isinstance(given, str) else "").partition(" ")
            if scheme.lower() == "bearer" and token_agrees(word, token):
                return await continuation(details)
            why = "no-token" if given is None else "wrong-token"

            async def refuse(_: Any, context: Any) -> None:
                refused(why, str(context.peer()))
                text = "no token: send the metadata authorization: Bearer TOKEN" if given is None else "wrong token"
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, text)

            return grpc.stream_stream_rpc_method_handler(refuse)

    return TokenCheck()
