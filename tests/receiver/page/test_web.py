"""The live page's server: what it shows, to whom, and what it withstands; and the page itself in a browser."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gosvae.errors import LinkError
from gosvae.packets.reassembly import ReceivedFrame
from gosvae.protocol.frames import Frame
from gosvae.protocol.security import Endpoint, ServerTls
from gosvae.receiver.engine import Engine, EngineLimits
from gosvae.receiver.metrics import Metrics
from gosvae.receiver.page.board import MOST_SENDERS, MOST_WATCHED, Board
from gosvae.receiver.page.web import MAX_CONNECTIONS, WebServer
from gosvae.sender.sources import as_jpeg
from small_link import HOST, LOOPBACK, TOKEN, Authority, codec, perception, run, stream
from tiny import streets

PATIENT = EngineLimits(deadline_ms=0, max_frames=1000)
EVIL = "<img src=x onerror=alert(1)>"


def get(server: WebServer, path: str, **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(server.endpoint.host, server.endpoint.port, timeout=20)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def state(server: WebServer, sender: str | None = None) -> dict[str, object]:
    response, data = get(server, "/state" if sender is None else f"/state?sender={sender}")
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    tree: dict[str, object] = json.loads(data)
    return tree


@contextmanager
def never_answered(server: WebServer, count: int):  # type: ignore[no-untyped-def]
    """Connections that ask for nothing."""
    sockets = [socket.create_connection((server.endpoint.host, server.endpoint.port)) for _ in range(count)]
    try:
        yield
    finally:
        for opened in sockets:
            opened.close()


def served(test: Callable[[WebServer], object], **options: object) -> None:
    """Run a test in a thread while an engine and its page are up."""

    async def up() -> None:
        async with Engine(perception(), PATIENT) as engine:
            board = Board(engine, lambda sender: (EVIL, 12.5) if sender == "grpc:1" else None)
            metrics = Metrics(engine)
            with WebServer(LOOPBACK, board, metrics.render, **options) as server:  # type: ignore[arg-type]
                loop = asyncio.get_running_loop()

                def submit(frame: Frame) -> None:
                    async def answered() -> None:
                        await (await engine.submit(frame))

                    asyncio.run_coroutine_threadsafe(answered(), loop).result(20)

                server.submit = submit  # type: ignore[attr-defined]
                await asyncio.to_thread(test, server)

    run(up)


def submit(server: WebServer, frame: Frame) -> None:
    server.submit(frame)  # type: ignore[attr-defined]


def test_the_state_tells_what_happened() -> None:
    def test(server: WebServer) -> None:
        assert state(server)["selected"] is None
        for n in range(4):
            submit(server, Frame("grpc:1", n, stream(n)))
        submit(server, Frame("grpc:1", 4, b"garbage"))
        for n in range(2):
            server.board.packets("udp:00000001", ReceivedFrame(1, n, b"", (), 3, 4))
            submit(server, Frame("udp:00000001", n, stream(n)))
        tree = state(server, "grpc:1")
        first, second = tree["senders"]  # type: ignore[misc]
        assert (first["name"], first["frames"], first["dropped_share"], first["round_trip_ms"]) == (EVIL, 5, 0.2, 12.5)
        assert (second["id"], second["packet_loss"], second["transport"]) == ("udp:00000001", 0.25, "udp")
        assert first["kib"] == pytest.approx((sum(len(stream(n)) for n in range(4)) + 7) / 5 / 1024, abs=1e-3)
        assert first["latency_ms"] > 0
        assert tree["engine"] == {"received": 7, "answered": 6, "waiting": 0, "dropped": {"damaged": 1}}
        assert [c["name"] for c in tree["classes"]] == list(perception().class_names)  # type: ignore[attr-defined]
        detail = tree["selected"]
        assert detail["series"]["lost"] == [0, 0, 0, 0, 1]  # type: ignore[index]
        assert state(server, "nobody")["selected"]["id"] == "grpc:1"  # type: ignore[index]

    served(test)


def test_pictures_of_who_is_watched() -> None:
    image = streets()[0].image_uint8_HW3

    def test(server: WebServer) -> None:
        submit(server, Frame("grpc:1", 0, stream(0)))
        assert get(server, "/picture/classes?sender=grpc:1")[0].status == 404  # nobody had asked before
        submit(server, Frame("grpc:1", 1, stream(0), original=as_jpeg(image)))
        detail = state(server, "grpc:1")["selected"]
        assert detail["picture"]["number"] == 1  # type: ignore[index]
        assert detail["picture"]["original"] is True  # type: ignore[index]
        assert sum(detail["picture"]["shares"]) == pytest.approx(1, abs=0.01)  # type: ignore[index]
        pictures = {}
        for kind, media_type in (("reconstruction", "jpeg"), ("classes", "png"), ("original", "jpeg")):
            response, data = get(server, f"/picture/{kind}?sender=grpc:1")
            assert response.headers["Content-Type"] == f"image/{media_type}"
            pictures[kind] = np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)
        assert np.abs(pictures["reconstruction"] - codec().decompress(stream(0)).astype(int)).mean() < 8
        assert np.abs(pictures["original"] - image.astype(int)).mean() < 8
        palette = {tuple(bytes.fromhex(c["colour"][1:])) for c in state(server)["classes"]}  # type: ignore[attr-defined]
        assert {tuple(c) for c in pictures["classes"].reshape(-1, 3).tolist()} <= palette
        assert get(server, "/picture/concealed?sender=grpc:1")[0].status == 404
        # What a sender calls its picture never reaches a browser as it is.
        submit(server, Frame("grpc:1", 2, stream(0), original=b"<svg onload=alert(1)>"))
        assert get(server, "/picture/original?sender=grpc:1")[0].status == 404

    served(test)


def test_memory_for_pictures_and_senders_is_bounded() -> None:
    async def test() -> None:
        async with Engine(perception(), PATIENT) as engine:
            now_s = 0.0
            board = Board(engine, clock=lambda: now_s)
            for n in range(MOST_SENDERS + 20):
                await (await engine.submit(Frame(f"s{n}", 0, stream())))
            senders = board.state(None)["senders"]
            assert len(senders) == MOST_SENDERS
            for n in range(100, 110):
                board.state(f"s{n}")
            for n in range(100, 110):
                await (await engine.submit(Frame(f"s{n}", 1, stream())))
            board.state("s109")
            kept = [n for n in range(100, 110) if board._senders[f"s{n}"].picture is not None]
            assert len(kept) <= MOST_WATCHED
            now_s = 60.0
            for n in range(100, 110):
                await (await engine.submit(Frame(f"s{n}", 2, stream())))
            assert not any(sender.picture for sender in board._senders.values())

    run(test)


def test_files_of_the_page_and_their_headers() -> None:
    def test(server: WebServer) -> None:
        for path, begin in (("/", b"<!doctype html>"), ("/page.css", b":root"), ("/page.js", b'"use strict"')):
            response, data = get(server, path)
            assert response.status == 200
            assert data.startswith(begin)
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Server"] == "gosvae"
            # Nothing comes from elsewhere: the only addresses are names of XML.
            assert set(re.findall(rb"https?://[\w.]+", data)) <= {b"http://www.w3.org"}
            assert b"innerHTML" not in data
        for path in ("/nothing", "/../pyproject.toml", "/static/page.html", "/picture/other?sender=grpc:1", "/%2e%2e"):
            assert get(server, path)[0].status == 404
        assert get(server, "/health")[1] == b"serving\n"

    served(test)


def test_tokens_of_readers(caplog: pytest.LogCaptureFixture) -> None:
    def basic(password: str) -> str:
        return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()

    def test(server: WebServer) -> None:
        for path in ("/", "/state", "/metrics", "/picture/classes?sender=s", "/nothing"):
            for bad in ("", f"Bearer {TOKEN}x", "Bearer", basic("x"), f"Digest {TOKEN}", "Basic ****"):
                response, _ = get(server, path, Authorization=bad)
                assert response.status == 401
                assert response.headers["WWW-Authenticate"].startswith("Basic")
        assert get(server, "/health")[0].status == 200
        for good in (f"Bearer {TOKEN}", basic(TOKEN)):
            assert get(server, "/state", Authorization=good)[0].status == 200

    served(test, token=TOKEN)
    assert "no token or a wrong one" in caplog.text
    assert TOKEN not in caplog.text


def test_no_other_site_reads_the_page_through_a_browser() -> None:
    def test(server: WebServer) -> None:
        port = server.endpoint.port
        for host in ("evil.example", f"evil.example:{port}", "", "127.0.0.1.evil.example"):
            assert get(server, "/state", Host=host)[0].status == 421
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "localhost"):
            assert get(server, "/state", Host=host)[0].status == 200

    served(test)


def test_garbage_and_idle_connections() -> None:
    def test(server: WebServer) -> None:
        for garbage in (
            b"\xff\xfe\r\n\r\n",
            b"GET\r\n\r\n",
            b"POST / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/9\r\n\r\n",
            b"x" * 70_000,
        ):
            with socket.create_connection((HOST, server.endpoint.port)) as raw:
                raw.settimeout(20)
                raw.sendall(garbage)
                raw.shutdown(socket.SHUT_WR)
                with BytesIO() as answer:
                    try:
                        while data := raw.recv(4096):
                            answer.write(data)
                    except ConnectionError:
                        pass
                    assert b" 200 " not in answer.getvalue()[:20]
        with never_answered(server, MAX_CONNECTIONS + 10):
            time.sleep(0.3)
            with pytest.raises((OSError, ConnectionError)):  # all places are taken, and this one is told at once
                get(server, "/state")
        time.sleep(0.3)
        assert get(server, "/state")[0].status == 200

    served(test)


def test_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path, "ours")
    tls = ServerTls(*authority.sign("server"))

    def test(server: WebServer) -> None:
        trusting = ssl.create_default_context(cafile=str(authority.file))
        raw = socket.create_connection((HOST, server.endpoint.port), timeout=20)
        with trusting.wrap_socket(raw, server_hostname="localhost") as secure:
            secure.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert secure.recv(4096).startswith(b"HTTP/1.1 200")
        with pytest.raises((OSError, ConnectionError, Exception)):
            get(server, "/health")

    served(test, tls=tls.context())
    assert "TLS" in caplog.text


def test_metrics_for_prometheus() -> None:
    def test(server: WebServer) -> None:
        submit(server, Frame("grpc:1", 0, stream(0)))
        submit(server, Frame("grpc:1", 1, b"garbage"))
        response, data = get(server, "/metrics")
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        values = dict(line.rsplit(" ", 1) for line in data.decode().splitlines() if not line.startswith("#"))
        assert float(values['gosvae_frames_total{outcome="answered"}']) == 1
        assert float(values['gosvae_frames_total{outcome="damaged"}']) == 1
        assert float(values["gosvae_frames_received_total"]) == 2
        assert float(values['gosvae_stage_seconds_count{stage="expert"}']) == 1
        assert float(values['gosvae_stage_seconds_sum{stage="total"}']) > 0
        assert float(values["gosvae_stream_bytes_sum"]) == len(stream(0))

    served(test)


def test_a_port_in_use() -> None:
    with socket.create_server((HOST, 0)) as taken:

        async def test() -> None:
            async with Engine(perception()) as engine:
                with pytest.raises(LinkError, match="cannot listen"):
                    WebServer(Endpoint(HOST, taken.getsockname()[1]), Board(engine))

        run(test)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    def test(server: WebServer) -> None:
        state(server)
        submit(server, Frame("grpc:1", 0, stream(0)))
        state(server, "grpc:1")
        for n in range(1, 6):
            submit(server, Frame("grpc:1", n, stream(n), original=as_jpeg(streets()[n % 4].image_uint8_HW3)))
        command = [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'user'}"),
            *("--enable-logging=stderr", "--dump-dom", f"http://{server.endpoint}/"),
        ]
        for budget_ms in (5_000, 20_000, 60_000):  # of the browser's own clock, which a slow machine does not keep to
            command[-2:-2] = [f"--virtual-time-budget={budget_ms}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
            page = done.stdout
            if 'data-ready="yes"' in page:
                break
        assert 'data-ready="yes"' in page, done.stderr[-2000:]
        assert not re.findall(r".*CONSOLE.*", done.stderr)  # no error of a script, nothing that the policy forbids
        assert EVIL not in page
        assert "&lt;img src=x onerror=alert(1)&gt;" in page
        for words in (
            "live, 1 sender",
            "bicyclist",
            "entropy decoding",
            "frame 5 · 96",
            "13 ms from sender to class map",
        ):
            assert words in page
        assert re.search(r'<canvas id="overlay" width="96" height="64"', page)
        assert re.search(r'<figure id="original-figure"><canvas', page)  # shown: it was sent

    served(test)
