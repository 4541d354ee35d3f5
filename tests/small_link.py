"""A small receiver, streams for it, and certificates: what tests of the service share."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gosvae.codecs.vq import VqCodec
from gosvae.protocol.security import Endpoint
from gosvae.receiver.engine import Engine, EngineLimits
from gosvae.receiver.perception import Perception
from gosvae.receiver.service import LinkService
from gosvae.receiver.session import ServiceLimits
from gosvae.sender import grpc_target
from gosvae.sender.client import LinkClient
from tiny import checkpoint, expert, streets

HOST = "127.0.0.1"
TOKEN = "a-token-of-many-characters"
LOOPBACK = Endpoint(HOST, 0)


PATIENCE_S = 120.0
"""Limit of a wait that ends by an event: no machine is so busy that it takes longer."""


def run(test: Callable[[], Awaitable[None]], seconds: float = 2 * PATIENCE_S) -> None:
    """Run a test on an event loop of its own, within a time limit; what it leaves open is closed.

    Raises:
        AssertionError: the test left a gRPC server running.
    """

    async def limited() -> None:
        _keep_grpc()
        async with servers_stopped(), asyncio.timeout(seconds):
            await test()

    with patient_senders():
        asyncio.run(limited())


@contextmanager
def patient_senders() -> Iterator[None]:
    """Lengthen the waits of a sender for its receiver, which a busy machine keeps it waiting for."""
    with (
        patch.dict(LinkClient.open.__func__.__kwdefaults__, timeout_s=PATIENCE_S),  # type: ignore[attr-defined]
        patch.object(grpc_target, "DRAIN_S", PATIENCE_S),
    ):
        yield


@cache
def _keep_grpc() -> None:
    """Keep gRPC's completion queue to the end of the process.

    gRPC counts its servers, channels and calls, and joins the thread of the queue when the last one is destroyed. With
    a server that was never stopped that thread does not end, and the garbage collection that destroys the server would
    hang. Called on an event loop, which gRPC asks for.
    """
    grpc.aio.init_grpc_aio()


@asynccontextmanager
async def servers_stopped() -> AsyncIterator[None]:
    """Stop the gRPC servers that are made in the block while their event loop is there.

    Raises:
        AssertionError: the block ends well but leaves a server running.
    """
    servers: list[Any] = []
    real = grpc.aio.server

    def server(*arguments: Any, **options: Any) -> Any:
        servers.append(real(*arguments, **options))
        return servers[-1]

    try:
        with patch.object(grpc.aio, "server", server):
            yield
        assert not any(server._server.is_running() for server in servers), "a gRPC server was left running"
    finally:
        for left in servers:
            await left.stop(None)


async def until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Wait for something that another task or thread does."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def forward(seconds: float) -> None:
    """Put the clock of the running event loop forward, so that its timers are due."""
    loop = asyncio.get_running_loop()
    real = loop.time
    loop.time = lambda: real() + seconds  # type: ignore[method-assign]


@cache
def codec() -> VqCodec:
    return VqCodec(checkpoint())


@cache
def stream(number: int = 0) -> bytes:
    """One of a few streams of 64x96 pixels."""
    return codec().compress(streets()[number % 4].image_uint8_HW3)


def perception(**more: Any) -> Perception:
    return Perception(codec(), expert(), **more)


def patient_limits(**more: Any) -> ServiceLimits:
    """Limits of a service that clients on a busy machine keep to, but for those that are given."""
    return ServiceLimits(**{"hello_s": PATIENCE_S, "write_s": PATIENCE_S, "grace_s": PATIENCE_S} | more)


@asynccontextmanager
async def serving(
    engine_limits: EngineLimits | None = None,
    looks: Perception | None = None,
    limits: ServiceLimits | None = None,
    **service: Any,
) -> AsyncIterator[LinkService]:
    """A service with its engine on a free port of this machine; by default no frame is ever too old."""
    async with (
        Engine(looks or perception(), engine_limits or EngineLimits(deadline_ms=0)) as engine,
        LinkService(engine, LOOPBACK, limits=limits or patient_limits(), **service) as listening,
    ):
        yield listening


class Authority:
    """Signs certificates and writes them to a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._build(self._name, self._key, (-1, 30), authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _build(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: tuple[int, int], *, authority: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def sign(self, name: str, days: tuple[int, int] = (-1, 30)) -> tuple[Path, Path]:
        """Files of a certificate for this machine, valid for the days from now, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate = self._build(subject, key, days, authority=False)
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files
