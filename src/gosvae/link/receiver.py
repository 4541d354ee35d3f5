"""A receiver put together: engine, gRPC service, UDP, live page and metrics."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

from gosvae.errors import ConfigError, LinkError
from gosvae.link.board import Board
from gosvae.link.engine import Engine, EngineLimits, Frame
from gosvae.link.inlet import DEFAULT_DEADLINE_MS, Inlet
from gosvae.link.metrics import Metrics
from gosvae.link.perception import Perception
from gosvae.link.reassembly import ReceivedFrame
from gosvae.link.security import Endpoint, ServerTls, check_exposure
from gosvae.link.service import LinkService
from gosvae.link.session import ServiceLimits
from gosvae.link.udp import UdpReceiver
from gosvae.link.web import WebServer


@dataclass(frozen=True)
class ReceiverConfig:
    """Where a receiver listens, and to whom.

    Attributes:
        grpc, udp, page: addresses; None: not at all. At least one of the first two.
        engine, service: limits.
        udp_deadline_ms: how long after its first packet a frame is waited for.
        tls: of gRPC and page; None: not encrypted.
        token: that senders and readers of the page must know; None: none.
        insecure: listen beyond this machine without encryption and authentication.

    Raises:
        ConfigError: no address, or one that would be open to a network; see `check_exposure`.
    """

    grpc: Endpoint | None = None
    udp: Endpoint | None = None
    page: Endpoint | None = None
    engine: EngineLimits = field(default_factory=EngineLimits)
    service: ServiceLimits = field(default_factory=ServiceLimits)
    udp_deadline_ms: float = DEFAULT_DEADLINE_MS
    tls: ServerTls | None = None
    token: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.grpc is None and self.udp is None:
            raise ConfigError("nothing to receive from: give an address for gRPC, for UDP, or both", argument="grpc")
        encrypted = self.tls is not None
        by_certificate = self.tls is not None and self.tls.client_authority is not None
        known = self.token is not None or by_certificate
        if self.tls is not None:
            self.tls.check()
        for what, endpoint in (("gRPC", self.grpc), ("the page", self.page)):
            if endpoint is not None:
                check_exposure(what, endpoint, encrypted=encrypted, authenticated=known, insecure=self.insecure)
        if self.udp is not None and not self.udp.is_loopback and not self.insecure:
            raise ConfigError(
                f"UDP on {self.udp} can be reached from outside this machine, and its packets are neither encrypted "
                "nor authenticated: listen on 127.0.0.1 behind a tunnel, or set insecure=True",
                argument="insecure",
            )


class Receiver:
    """`async with Receiver(perception, config) as receiver` listens; its parts have the addresses and counters.

    Raises, when it is entered:
        LinkError: an address cannot be listened on.
        MissingDependencyError: a package of `gosvae[serve]` is missing.
    """

    def __init__(self, perception: Perception, config: ReceiverConfig) -> None:
        self.config = config
        self.engine = Engine(perception, config.engine)
        self.service: LinkService | None = None
        self.udp: UdpReceiver | None = None
        self.web: WebServer | None = None
        self.board = Board(self.engine, self._name_of)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        config = self.config
        async with AsyncExitStack() as stack:  # closes in the opposite order: first nothing new comes in
            await stack.enter_async_context(self.engine)
            if config.udp is not None:
                self.udp = await self._open_udp(config.udp)
                await stack.enter_async_context(self.udp)
            if config.grpc is not None:
                self.service = LinkService(
                    self.engine, config.grpc, limits=config.service, tls=config.tls, token=config.token
                )
                await stack.enter_async_context(self.service)
            if config.page is not None:
                metrics = Metrics(self.engine, self.service, self.udp)
                context = None if config.tls is None else config.tls.context()
                self.web = WebServer(config.page, self.board, metrics.render, token=config.token, tls=context)
                stack.enter_context(self.web)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open_udp(self, endpoint: Endpoint) -> UdpReceiver:
        inlet = Inlet(self.config.udp_deadline_ms)
        try:
            return await UdpReceiver.open(endpoint.host, endpoint.port, self._take, inlet=inlet)
        except OSError as error:
            reason = error.strerror or error
            raise LinkError(f"cannot listen for UDP on {endpoint}: {reason}; take another port") from None

    async def _take(self, frame: ReceivedFrame) -> None:
        """A frame came over UDP; nobody waits for the answer."""
        sender = f"udp:{frame.stream_id:08x}"
        self.board.packets(sender, frame)
        await self.engine.submit(Frame(sender, frame.frame, frame.stream, incomplete=bool(frame.missing)))

    def _name_of(self, sender: str) -> tuple[str, float] | None:
        state = None if self.service is None else self.service.senders.get(sender)
        return None if state is None else (state.name, state.round_trip_ms)
