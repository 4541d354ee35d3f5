"""Addresses, tokens, keys and certificates, and the check of an address that other machines can reach."""

from __future__ import annotations

import hmac
import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gosvae.errors import ConfigError

TOKEN_VARIABLE = "GOSVAE_TOKEN"
"""Name of the environment variable with the token, which is read if no file is given."""
MIN_TOKEN_CHARACTERS = 16
"""Least number of characters of a token."""
MIN_KEY_CHARACTERS = 32
"""Least number of characters of a key for UDP."""


@dataclass(frozen=True)
class Endpoint:
    """A host and a port; port 0 takes any free port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Return the endpoint that is written as `HOST:PORT`, `[IPV6]:PORT` or `:PORT` (this machine alone).

        Raises:
            ConfigError: the text is not of this form.
        """
        host, separator, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
        if not separator or not port.isdecimal() or int(port) > 65535:
            raise ConfigError(f"{text!r} is not an address: expected HOST:PORT such as 127.0.0.1:7777")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the endpoint."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_token(file: Path | None, environment: Mapping[str, str] = MappingProxyType(os.environ)) -> str | None:
    """Return the token in a file or, without a file, in the variable `GOSVAE_TOKEN`; None if there is neither.

    Args:
        file: file with the token.
        environment: environment variables.

    Raises:
        ConfigError: the file cannot be read, or the token is too short or not printable ASCII.
    """
    if file is None:
        token, where = environment.get(TOKEN_VARIABLE, ""), f"the environment's {TOKEN_VARIABLE}"
        if not token:
            return None
    else:
        token, where = _read_secret(file, "token"), str(file)
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the token of {where} has {len(token)} characters: expected at least {MIN_TOKEN_CHARACTERS} of ASCII "
            "without spaces; for example what `openssl rand -hex 32` prints"
        )
    return token


def _read_secret(file: Path, what: str) -> str:
    """Return the text of a file without spaces around it."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"cannot read the {what} of {file}: {reason}") from None


def read_key(file: Path) -> bytes:
    """Return the key in a file. Senders and receivers over UDP share this key.

    Raises:
        ConfigError: the file cannot be read, or the key is too short.
    """
    key = _read_secret(file, "key")
    if len(key) < MIN_KEY_CHARACTERS:
        raise ConfigError(
            f"the key of {file} has {len(key)} characters: expected at least {MIN_KEY_CHARACTERS}; for example what "
            "`openssl rand -hex 32` prints"
        )
    return key.encode()


def token_agrees(given: str, expected: str) -> bool:
    """Return whether two tokens are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


@dataclass(frozen=True)
class ServerTls:
    """PEM files of a receiver.

    Attributes:
        certificate, key: certificate of the receiver with its chain, and its private key.
        client_authority: certificate of the authority that signs the certificates of clients (mutual TLS); None asks
            clients for no certificate.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None

    def check(self) -> None:
        """Raise `ConfigError` if a file is missing, or if certificate and key do not belong together."""
        self.context()

    def context(self) -> ssl.SSLContext:
        """Return the context for a server that uses Python's `ssl`; errors are those of `check`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_authority is not None:
                context.load_verify_locations(self.client_authority)
                context.verify_mode = ssl.CERT_REQUIRED
        except OSError as error:  # ssl.SSLError is one
            files = ", ".join(str(f) for f in (self.certificate, self.key, self.client_authority) if f)
            reason = getattr(error, "reason", None) or error.strerror or error
            raise ConfigError(f"no certificate and key in {files}: {reason}") from None
        return context


@dataclass(frozen=True)
class ClientTls:
    """PEM files of a sender.

    Attributes:
        authority: certificate of the authority that signs the receiver's certificate; None means the authorities that
            gRPC trusts.
        certificate, key: certificate of the sender and its private key, for receivers that ask for them; otherwise
            None.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def read_pem(file: Path) -> bytes:
    """Return the bytes of a PEM file.

    Raises:
        ConfigError: the file cannot be read, or is not a PEM file.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    if b"-----BEGIN " not in data:
        raise ConfigError(f"{file} is not a PEM file: no line begins with -----BEGIN")
    return data


def check_exposure(what: str, endpoint: Endpoint, *, encrypted: bool, authenticated: bool, insecure: bool) -> None:
    """Check that an endpoint is not open to a network without encryption and authentication.

    Args:
        what: name of the part that listens, for the error.
        endpoint: address to listen on; loopback addresses are always allowed.
        encrypted: whether connections use TLS.
        authenticated: whether clients need a token or a certificate.
        insecure: whether to allow any endpoint.

    Raises:
        ConfigError: other machines can reach the endpoint, and it lacks encryption or authentication.
    """
    if endpoint.is_loopback or insecure or (encrypted and authenticated):
        return
    missing = " and ".join(
        name
        for name, there in (("TLS", encrypted), ("a token or the certificates of its clients", authenticated))
        if not there
    )
    raise ConfigError(
        f"{what} on {endpoint} can be reached from outside this machine and lacks {missing}: "
        "give it, listen on 127.0.0.1, or set insecure=True",
        argument="insecure",
    )
