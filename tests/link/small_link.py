"""A small receiver, streams for it, and certificates: what tests of the service share."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gosvae.codecs.vq import VqCodec
from gosvae.link.engine import Engine, EngineLimits
from gosvae.link.perception import Perception
from gosvae.link.security import Endpoint
from gosvae.link.service import LinkService
from tiny import checkpoint, expert, streets

HOST = "127.0.0.1"
TOKEN = "a-token-of-many-characters"
LOOPBACK = Endpoint(HOST, 0)


def run(test: Callable[[], Awaitable[None]], seconds: float = 120.0) -> None:
    """Run a test on an event loop of its own, for so long at most."""

    async def limited() -> None:
        await asyncio.wait_for(test(), seconds)

    asyncio.run(limited())


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something that another task or thread does."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@cache
def codec() -> VqCodec:
    return VqCodec(checkpoint())


@cache
def stream(number: int = 0) -> bytes:
    """One of a few streams of 64x96 pixels."""
    return codec().compress(streets()[number % 4].image_uint8_HW3)


def perception(**more: Any) -> Perception:
    return Perception(codec(), expert(), **more)


@asynccontextmanager
async def serving(
    engine_limits: EngineLimits | None = None, looks: Perception | None = None, **service: Any
) -> AsyncIterator[LinkService]:
    """A service with its engine on a free port of this machine."""
    async with (
        Engine(looks or perception(), engine_limits) as engine,
        LinkService(engine, LOOPBACK, **service) as listening,
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
