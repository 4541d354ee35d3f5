"""Addresses, tokens and certificates, and what a receiver refuses to open to a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from gosvae.errors import ConfigError
from gosvae.protocol.security import Endpoint, ServerTls, read_pem, read_token, token_agrees
from gosvae.receiver.receiver import ReceiverConfig
from small_link import TOKEN, Authority


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:7777", "127.0.0.1", 7777, True),
        (":0", "127.0.0.1", 0, True),
        ("localhost:65535", "localhost", 65535, True),
        ("[::1]:80", "::1", 80, True),
        ("[::]:80", "::", 80, False),
        ("0.0.0.0:1", "0.0.0.0", 1, False),
        ("example.org:1", "example.org", 1, False),
    ],
)
def test_endpoints(text: str, host: str, port: int, loopback: bool) -> None:
    endpoint = Endpoint.parse(text)
    assert (endpoint.host, endpoint.port, endpoint.is_loopback) == (host, port, loopback)
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize("text", ["", "127.0.0.1", "host:", "host:http", "host:65536", "host:-1", "host:1.5"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        Endpoint.parse(text)


def test_tokens_are_read_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file, {"GOSVAE_TOKEN": "another-token-of-some-length"}) == TOKEN
    assert read_token(None, {"GOSVAE_TOKEN": TOKEN}) == TOKEN
    assert read_token(None, {}) is None
    for bad in ("short", "", "x" * 20 + " y", "é" * 20, "x" * 20 + "\x00"):
        file.write_text(bad, encoding="utf-8")
        with pytest.raises(ConfigError, match="the token of"):
            read_token(file, {})
    with pytest.raises(ConfigError, match="cannot read"):
        read_token(tmp_path / "none", {})
    file.write_bytes(b"\xff\xfe" * 20)
    with pytest.raises(ConfigError, match="not text"):
        read_token(file, {})


def test_tokens_agree_only_with_themselves() -> None:
    assert token_agrees(TOKEN, TOKEN)
    assert not any(token_agrees(given, TOKEN) for given in ("", TOKEN[:-1], TOKEN + "x", "é\ud800"))


def test_files_of_tls_are_checked(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    certificate, key = authority.sign("server")
    ServerTls(certificate, key, authority.file).check()
    other_key = authority.sign("other")[1]
    for bad in (ServerTls(certificate, other_key), ServerTls(tmp_path / "none", key), ServerTls(key, key)):
        with pytest.raises(ConfigError, match="no certificate and key in"):
            bad.check()
    with pytest.raises(ConfigError, match="cannot read"):
        read_pem(tmp_path / "none")
    (tmp_path / "text").write_text("text")
    with pytest.raises(ConfigError, match="not a PEM file"):
        read_pem(tmp_path / "text")


OPEN = Endpoint("0.0.0.0", 7777)
HERE = Endpoint("127.0.0.1", 7777)


def test_nothing_is_opened_to_a_network_by_accident(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    tls, mutual = ServerTls(*authority.sign("a")), ServerTls(*authority.sign("b"), client_authority=authority.file)
    for config in (
        {"grpc": OPEN},
        {"grpc": OPEN, "token": TOKEN},
        {"grpc": OPEN, "tls": tls},
        {"grpc": HERE, "page": OPEN},
        {"grpc": HERE, "page": OPEN, "token": TOKEN},
        {"udp": OPEN, "tls": tls, "token": TOKEN},
    ):
        with pytest.raises(ConfigError, match="set insecure=True"):
            ReceiverConfig(**config)  # type: ignore[arg-type]
        ReceiverConfig(**config, insecure=True)  # type: ignore[arg-type]
    ReceiverConfig(grpc=OPEN, page=OPEN, tls=tls, token=TOKEN)
    ReceiverConfig(grpc=OPEN, page=OPEN, tls=mutual)
    ReceiverConfig(grpc=HERE, udp=HERE, page=HERE)
    with pytest.raises(ConfigError, match="nothing to receive from"):
        ReceiverConfig(page=HERE)
