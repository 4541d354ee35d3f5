"""gRPC service in front of the engine: each sender sends a stream of frames and reads a stream of answers.

No client can take more than its share. The bytes of a message, the number of streams, the frames without an answer, the
unread answers, and the time to read or to send are limited. `docs/service.md` explains the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any, Self

from gosvae.errors import LinkError
from gosvae.protocol.messages import METHOD, SERVICE, import_grpc
from gosvae.protocol.security import Endpoint, ServerTls, read_pem, token_agrees
from gosvae.receiver.connections import Watch, address_of, descriptor_limit, end
from gosvae.receiver.engine import Engine
from gosvae.receiver.limits import ServiceLimits
from gosvae.receiver.session import CallRefusal, Ledger, SenderState, ServiceCounters, Session
from gosvae.receiver.strangers import Backoff

log = logging.getLogger(__name__)

MESSAGE_OVERHEAD_BYTES = 65536
"""Number of bytes by which a message may be longer than its frame; gRPC ends the stream of a longer one."""
SWEEP_S = 0.5
"""Seconds between two counts of the connections of each source address."""
SPARE_DESCRIPTORS = 256
"""Number of descriptors that are kept free for everything except connections of clients."""


class LinkService:
    """Server that listens for senders: `async with LinkService(engine, endpoint, ...) as service`.

    Args:
        engine: engine that takes the frames.
        endpoint: address to listen on; port 0 takes any free port.
        limits: limits on clients; None means the defaults.
        tls: certificate and key; None listens without encryption.
        token: token that clients must know; None asks for no token.

    Attributes:
        endpoint: address that the service listens on, with the port that was taken.
        ledger: counts and senders of all streams.
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
        self.ledger = Ledger()
        self._tls, self._token = tls, token
        self._ids = itertools.count(1)
        self._sessions: set[Session] = set()
        self._grpc = import_grpc()
        self._server: Any = None
        self._health: Any = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def counters(self) -> ServiceCounters:
        """Numbers of streams and messages so far."""
        return self.ledger.counters

    @property
    def senders(self) -> dict[str, SenderState]:
        """Senders that are connected and have introduced themselves, by the engine's names for them."""
        return self.ledger.senders

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Start to listen; afterwards `endpoint` has the port.

        Raises:
            LinkError: the service cannot listen on the address.
            ConfigError: the files of TLS cannot be used.
        """
        grpc, limits = self._grpc, self.limits
        age = (
            [
                ("grpc.max_connection_age_ms", int(1000 * limits.age_s)),
                ("grpc.max_connection_age_grace_ms", int(1000 * limits.grace_s)),
            ]
            if limits.age_s
            else []
        )
        self._server = grpc.aio.server(
            interceptors=[_token_check(grpc, self._token, self.ledger.refuse, Backoff())] if self._token else [],
            options=[
                *age,
                ("grpc.max_receive_message_length", limits.max_frame_bytes + MESSAGE_OVERHEAD_BYTES),
                ("grpc.max_concurrent_streams", limits.max_streams),
                ("grpc.max_metadata_size", 8192),
                ("grpc.keepalive_time_ms", int(1000 * limits.keepalive_s)),
                ("grpc.keepalive_timeout_ms", int(500 * limits.keepalive_s)),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", int(500 * limits.keepalive_s)),
                ("grpc.server_handshake_timeout_ms", 10_000),
                ("grpc.max_connection_idle_ms", int(1000 * limits.idle_s)),
                ("grpc.max_allowed_incoming_connections", self._max_connections()),
                ("grpc.so_reuseport", 0),
            ],
        )
        # Without a deserialiser, so that malformed messages are answered here.
        handler = grpc.stream_stream_rpc_method_handler(self._connect)
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
        self._sweeper = asyncio.create_task(self._sweep(Watch(port, limits.max_per_source)))

    def _max_connections(self) -> int:
        """Return the greatest number of connections that leaves descriptors for the rest of the process."""
        wanted, most = self.limits.max_connections, descriptor_limit()
        return max(1, min(wanted, most - SPARE_DESCRIPTORS)) if most else wanted

    async def _sweep(self, watch: Watch) -> None:
        """Count the connections of each source address again and again, and end those beyond the limit."""
        while True:
            await asyncio.sleep(SWEEP_S)
            busy = {address for session in self._sessions if (address := address_of(session.peer)) is not None}
            try:
                excess = await asyncio.to_thread(watch.sweep, busy)
            except Exception:  # the next count may succeed
                log.exception("the connections of clients could not be counted")
                continue
            for host, count in excess.items():
                self.ledger.refused[CallRefusal.TOO_MANY_CONNECTIONS] += count
                self.ledger.limited_log.refused(host, f"{count} connections beyond {watch.most}")

    async def _add_health(self) -> None:
        """Add the standard health service, which needs no token and says only whether the receiver serves."""
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
        """Stop the service: report it to health checks, read no more frames, and answer those that were taken.

        Streams that have not ended after `ServiceLimits.grace_s` are cancelled.
        """
        if self._server is None or self._sweeper is None:
            return
        self._sweeper.cancel()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        if self._health is not None:
            await self._health.enter_graceful_shutdown()
        for session in self._sessions:
            session.read_no_more()
        await self._server.stop(self.limits.grace_s)
        self._server = None

    async def _connect(self, _: Any, context: Any) -> None:
        """Serve one stream, from Hello to its end."""
        peer, ledger = str(context.peer()), self.ledger
        refusal = self._no_place(peer)
        if refusal is not None:
            ledger.refuse(CallRefusal.TOO_MANY_STREAMS, peer)
            await context.abort(self._grpc.StatusCode.RESOURCE_EXHAUSTED, refusal)
        ledger.open_streams += 1
        ledger.counts["streams"] += 1
        session = Session(
            engine=self.engine,
            limits=self.limits,
            ledger=ledger,
            context=context,
            sender=f"grpc:{next(self._ids)}",
            peer=peer,
        )
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            ledger.senders.pop(session.sender, None)
            session.leave()
            ledger.open_streams -= 1
        if session.farewell is not None:
            await self._part(context, peer, *session.farewell)

    def _no_place(self, peer: str) -> str | None:
        """Return why a new stream cannot be served; None if it can, for which another one may have to give way."""
        address = address_of(peer)
        hosts = [found.host for session in self._sessions if (found := address_of(session.peer)) is not None]
        if address is not None and hosts.count(address.host) >= self.limits.max_per_source:
            return f"{hosts.count(address.host)} streams of {address.host} are open, which is all that it may have"
        if self.ledger.open_streams < self.limits.max_streams:
            return None
        quiet = min((s for s in self._sessions if s.farewell is None), key=lambda s: s.used_s, default=None)
        if quiet is not None and time.monotonic() - quiet.used_s > self.limits.stale_s:
            quiet.give_way()
            return None
        return f"{self.ledger.open_streams} streams are open, and this receiver takes no more: try again later"

    async def _part(self, context: Any, peer: str, status: Any, text: str) -> None:
        """End a call with a status; close its connection if the client does not read that in time.

        gRPC sends a status after everything before it, so that a client which reads nothing would never get it.
        """
        try:
            async with asyncio.timeout(self.limits.farewell_s):
                await context.abort(status, text)
        except TimeoutError:
            address = address_of(peer)
            if address is not None:
                await asyncio.to_thread(end, self.endpoint.port, {address})


def _reason(error: Exception) -> str:
    """Return gRPC's reason for not listening on a port, shortened."""
    text = str(error)
    with contextlib.suppress(IndexError):
        text = text.split("errors: ")[-1].splitlines()[0]
    return "it is in use or not of this machine" if "Failed to bind" in text else text


def _token_check(grpc: Any, token: str, refuse: Callable[[CallRefusal, str], None], backoff: Backoff) -> Any:
    """Return an interceptor that lets through calls with the token, and health checks.

    The more wrong tokens a source address gives, the longer it waits for the answer.
    """

    class TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc]
        """The interceptor; defined here because its base class is imported late."""

        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            """Return the handler of a call; called by gRPC."""
            if details.method.startswith("/grpc.health.v1.Health/"):
                return await continuation(details)
            given = next((value for key, value in details.invocation_metadata if key == "authorization"), None)
            scheme, _, word = (given if isinstance(given, str) else "").partition(" ")
            if scheme.lower() == "bearer" and token_agrees(word, token):
                return await continuation(details)
            reason = CallRefusal.NO_TOKEN if given is None else CallRefusal.WRONG_TOKEN

            async def unauthenticated(_: Any, context: Any) -> None:
                peer = str(context.peer())
                refuse(reason, peer)
                if given is not None:
                    address = address_of(peer)
                    delay_s = backoff.delay_s(peer if address is None else address.host)
                    backoff.waiting += 1
                    try:
                        await asyncio.sleep(delay_s)
                    finally:
                        backoff.waiting -= 1
                text = "no token: send the metadata authorization: Bearer TOKEN" if given is None else "wrong token"
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, text)

            return grpc.stream_stream_rpc_method_handler(unauthenticated)

    return TokenCheck()
