"""Complete receiver: engine, gRPC service, UDP, live page and metrics."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from gosvae.errors import ConfigError, LinkError
from gosvae.packets.allowance import Allowance
from gosvae.packets.inlet import DEFAULT_DEADLINE_MS, Inlet
from gosvae.packets.reassembly import ReceivedFrame
from gosvae.packets.recovery import Recovery
from gosvae.protocol.feedback import Outcomes
from gosvae.protocol.frames import Answer, Frame, Outcome
from gosvae.protocol.security import Endpoint, ServerTls, check_exposure
from gosvae.receiver.engine import Engine, EngineLimits
from gosvae.receiver.limits import ServiceLimits
from gosvae.receiver.metrics import Metrics
from gosvae.receiver.page.board import Board
from gosvae.receiver.page.web import WebServer
from gosvae.receiver.perception import Perception
from gosvae.receiver.service import LinkService
from gosvae.receiver.udp import MOST_PEERS, UdpReceiver


@dataclass(frozen=True)
class ReceiverConfig:
    """Addresses, limits and security of a receiver.

    Attributes:
        grpc, udp, page: addresses to listen on; None leaves that part out. One of `grpc` and `udp` is needed.
        engine, service: limits of the engine and of the gRPC service.
        udp_deadline_ms: number of milliseconds from the arrival of a frame's first packet after which a frame over UDP
            is closed; see `Inlet`.
        udp_key: key of at least 32 bytes that senders over UDP know and that seals their datagrams; None takes
            datagrams from anyone.
        tls: certificate and key for gRPC and the page; None listens without encryption.
        token: token that senders and readers of the page must know; None asks for no token.
        insecure: whether other machines may reach the addresses without encryption and authentication.

    Raises:
        ConfigError: there is no address, or one would be open to a network; see `check_exposure`.
    """

    grpc: Endpoint | None = None
    udp: Endpoint | None = None
    page: Endpoint | None = None
    engine: EngineLimits = field(default_factory=EngineLimits)
    service: ServiceLimits = field(default_factory=ServiceLimits)
    udp_deadline_ms: float = DEFAULT_DEADLINE_MS
    udp_key: bytes | None = None
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
        if self.udp is not None and self.udp_key is None and not self.udp.is_loopback and not self.insecure:
            raise ConfigError(
                f"UDP on {self.udp} can be reached from outside this machine, and its packets are neither encrypted "
                "nor authenticated: give a key, listen on 127.0.0.1 behind a tunnel, or set insecure=True",
                argument="insecure",
            )


class Receiver:
    """Receiver that listens within its context: `async with Receiver(perception, config) as receiver`.

    Entering the context raises `LinkError` if the receiver cannot listen on an address, and `MissingDependencyError` if
    a package of `gosvae[serve]` is not installed.

    Args:
        perception: codec and experts.
        config: addresses, limits and security.

    Attributes:
        engine: engine, with the counters of frames.
        service, udp, web: gRPC service, UDP receiver and web server, with their addresses and counters; None for those
            that the configuration leaves out.
        board: data of the live page.
    """

    def __init__(self, perception: Perception, config: ReceiverConfig) -> None:
        self.config = config
        self.engine = Engine(perception, config.engine)
        self.service: LinkService | None = None
        self.udp: UdpReceiver | None = None
        self.web: WebServer | None = None
        self.board = Board(self.engine, self._name_of, self._connected)
        self._stack = AsyncExitStack()
        self._outcomes: OrderedDict[int, Outcomes] = OrderedDict()

    async def __aenter__(self) -> Self:
        config = self.config
        async with AsyncExitStack() as stack:  # closes in the opposite order: first, nothing new comes in
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
                await stack.enter_async_context(self.web)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open_udp(self, endpoint: Endpoint) -> UdpReceiver:
        inlet = Inlet(self.config.udp_deadline_ms, recovery=Recovery(allowance=Allowance()))
        try:
            return await UdpReceiver.open(
                endpoint.host, endpoint.port, self._take, inlet=inlet, key=self.config.udp_key
            )
        except OSError as error:
            reason = error.strerror or error
            raise LinkError(f"cannot listen for UDP on {endpoint}: {reason}; take another port") from None

    async def _take(self, frame: ReceivedFrame) -> None:
        """Give a frame that came over UDP to the engine; the sender of a video is told its outcome."""
        sender = f"udp:{frame.stream_id:08x}"
        self.board.packets(sender, frame)
        incomplete = bool(frame.missing)
        outcome = await self.engine.submit(
            Frame(sender=sender, number=frame.frame, stream=frame.stream, incomplete=incomplete)
        )
        if self.engine.perception.is_sequence(frame.stream):
            outcome.add_done_callback(partial(self._tell, frame.stream_id, frame.frame))

    def _tell(self, stream_id: int, number: int, future: asyncio.Future[Outcome]) -> None:
        """Tell the sender of a video over UDP which of its frames were decoded."""
        if future.cancelled() or self.udp is None:
            return
        outcomes = self._outcomes.setdefault(stream_id, Outcomes())
        self._outcomes.move_to_end(stream_id)
        if len(self._outcomes) > MOST_PEERS:
            self._outcomes.popitem(last=False)
        outcome = future.result()
        # A frame of which a part was concealed is shown, and no decoder has it as a reference.
        outcomes.add(number, decoded=isinstance(outcome, Answer) and not outcome.concealed_pixels)
        if not self.udp.inlet.compact.has_compact(stream_id):  # the sender may not know the other version
            self.udp.tell(outcomes.feedback(stream_id))
        self.udp.tell(outcomes.feedback(stream_id, compact=True))

    def _connected(self) -> frozenset[str]:
        """Return the engine's names of the senders that are connected over gRPC."""
        return frozenset() if self.service is None else frozenset(dict(self.service.senders))

    def _name_of(self, sender: str) -> tuple[str, float] | None:
        """Return the name that a sender gives itself and its round trip in ms; None over UDP."""
        state = None if self.service is None else self.service.senders.get(sender)
        return None if state is None else (state.name, state.round_trip_ms)
