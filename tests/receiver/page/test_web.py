"""The live page's server: what it shows, to whom, and what it withstands; and the page itself in a browser."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
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
from gosvae.receiver import strangers
from gosvae.receiver.engine import Engine, EngineLimits
from gosvae.receiver.metrics import Metrics
from gosvae.receiver.page import web
from gosvae.receiver.page.board import MOST_SENDERS, MOST_WATCHED, Board
from gosvae.receiver.page.web import MAX_CONNECTIONS, MAX_REQUESTS, WebServer
from gosvae.receiver.strangers import LINES_OF_SOURCE, MOST_DELAY_S
from gosvae.sender.sources import as_jpeg
from small_link import HOST, LOOPBACK, TOKEN, Authority, codec, perception, run, stream, until
from tiny import streets

PATIENT = EngineLimits(deadline_ms=0, max_frames=1000)
EVIL = "<img src=x onerror=alert(1)>"


def get(server: WebServer, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(server.endpoint.host, server.endpoint.port, timeout=20)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
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
def connections(server: WebServer, count: int) -> Iterator[list[socket.socket]]:
    """Connections that ask for nothing."""
    with ExitStack() as stack:
        place = (server.endpoint.host, server.endpoint.port)
        yield [stack.enter_context(socket.create_connection(place, timeout=20)) for _ in range(count)]


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait in a thread for something that the event loop does."""
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def all_of(raw: socket.socket) -> bytes:
    """What a connection brings until the server ends it."""
    data = b""
    try:
        while part := raw.recv(65536):
            data += part
    except ConnectionError:  # a reset is an end, too
        pass
    return data


def served(test: Callable[[WebServer], object], **options: object) -> None:
    """Run a test in a thread while an engine and its page are up."""

    async def up() -> None:
        async with Engine(perception(), PATIENT) as engine:
            board = Board(
                engine, lambda sender: (EVIL, 12.5) if sender == "grpc:1" else None, connected=lambda: ("grpc:1",)
            )
            metrics = Metrics(engine)
            async with WebServer(LOOPBACK, board, metrics.render, **options) as server:  # type: ignore[arg-type]
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
        assert state(server)["selected"]["note"].endswith("no frame of it has come yet.")  # type: ignore[index]
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
        assert detail["series"]["lost"] == [0, 0, 0, 0, 2]  # type: ignore[index]
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


def test_tokens_of_readers(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "MOST_DELAY_S", 0.0)

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


def test_the_head_of_an_answer_alone() -> None:
    def test(server: WebServer) -> None:
        submit(server, Frame("grpc:1", 0, stream(0)))
        for path in ("/", "/page.js", "/health", "/metrics", "/nothing"):
            (full, body), (head, nothing) = get(server, path), get(server, path, "HEAD")
            assert nothing == b""
            assert head.status == full.status
            if path != "/metrics":  # whose length changes with its numbers
                assert int(head.headers["Content-Length"]) == len(body)
            assert head.headers["Content-Type"] == full.headers["Content-Type"]
            assert head.headers["X-Frame-Options"] == "DENY"

    served(test)


@pytest.mark.parametrize("path", ["/", "/state", "/health", "/nothing"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(path: str, method: str) -> None:
    def test(server: WebServer) -> None:
        response, _ = get(server, path, method)
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"

    served(test)


GARBAGE = (
    b"\xff\xfe\r\n\r\n",
    b"GET\r\n\r\n",
    b"POST / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/9\r\n\r\n",
    b"x" * 70_000,
    b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n" + b"z" * 70_000,
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n",
)


def test_garbage_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    def test(server: WebServer) -> None:
        for garbage in GARBAGE:
            with connections(server, 1) as (raw,):
                with suppress(ConnectionError):
                    raw.sendall(garbage)
                    raw.shutdown(socket.SHUT_WR)
                answer = all_of(raw)
            assert b" 200 " not in answer
            assert b"serving" not in answer
        assert get(server, "/state")[0].status == 200
        eventually(lambda: not server._http.connections)  # type: ignore[union-attr]

    served(test)
    assert "a malformed request" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_newest_connection_gets_in_and_the_one_that_waited_longest_goes(encrypted: bool, tmp_path: Path) -> None:
    """As many connections as there may be send nothing, or the first byte of a handshake."""
    authority = Authority(tmp_path, "ours")
    tls = ServerTls(*authority.sign("server")).context() if encrypted else None
    trusting = ssl.create_default_context(cafile=str(authority.file))

    def test(server: WebServer) -> None:
        with connections(server, MAX_CONNECTIONS) as silent, connections(server, 10) as late:
            for raw in silent:
                raw.sendall(b"\x16" if encrypted else b"G")
            for raw in late:
                with trusting.wrap_socket(raw, server_hostname="localhost") if encrypted else nullcontext(raw) as asked:
                    asked.sendall(b"GET /state HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    assert all_of(asked).startswith(b"HTTP/1.1 200")
            for raw in silent[:10]:
                assert all_of(raw) == b""
        eventually(lambda: not server._http.connections and not server._arriving)  # type: ignore[union-attr]

    served(test, tls=tls)


def test_health_and_metrics_have_places_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    """As many requests as may be answered at once are asked by clients that do not read."""

    def test(server: WebServer) -> None:
        server.board.picture = lambda *_: (bytes(2**24), "image/jpeg")  # type: ignore[method-assign,assignment]
        with connections(server, MAX_REQUESTS) as greedy:
            for raw in greedy:
                raw.sendall(b"GET /picture/original?sender=s HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda: server._requests == MAX_REQUESTS)
            for _ in range(3):
                assert get(server, "/health")[1] == b"serving\n"
                assert get(server, "/metrics")[0].status == 200
                response, _ = get(server, "/state")
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
        eventually(lambda: server._requests == 0)
        assert get(server, "/state")[0].status == 200

    served(test)
    assert "too many requests" in caplog.text


def test_a_head_that_comes_byte_by_byte_has_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT_S", 0.3)

    def drip(server: WebServer, raw: socket.socket) -> None:
        """Send a header without end, byte by byte, until the server has enough."""
        with suppress(ConnectionError):
            raw.sendall(b"GET /health HTTP/1.1\r\nX: ")
            while True:
                raw.sendall(b"y")
                time.sleep(0.01)
        eventually(lambda: not server._http.connections)  # type: ignore[union-attr]

    def test(server: WebServer) -> None:
        with connections(server, 1) as (first,):
            drip(server, first)
        monkeypatch.setattr(web, "TIMEOUT_S", 3.0)  # for the first answer of a busy machine
        with connections(server, 1) as (again,):
            again.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert again.recv(4096).startswith(b"HTTP/1.1 200")
            drip(server, again)

    served(test)


SECOND = b"GET /state HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    "how", [b"Content-Length: %d\r\n\r\n" % len(SECOND), b"Transfer-Encoding: chunked\r\n\r\n2b\r\n"]
)
def test_a_body_behind_get_is_no_second_request(method: bytes, how: bytes) -> None:
    def test(server: WebServer) -> None:
        with connections(server, 1) as (raw,):
            raw.sendall(method + b" /health HTTP/1.1\r\nHost: localhost\r\n" + how + SECOND)
            answers = all_of(raw)
        assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 400 ") == 1
        eventually(lambda: not server._http.connections)  # type: ignore[union-attr]

    served(test)


def test_readers_with_wrong_tokens_wait_and_few_lines_tell_of_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited_s: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waited_s.append(seconds)
        await real_sleep(0)

    def test(server: WebServer) -> None:
        monkeypatch.setattr(web.asyncio, "sleep", sleep)
        for _ in range(9):
            assert get(server, "/state", Authorization="Bearer wrong")[0].status == 401
        assert get(server, "/state")[0].status == 401  # as browsers ask first
        assert get(server, "/state", Authorization=f"Bearer {TOKEN}")[0].status == 200
        waits = [seconds for seconds in waited_s if 0 < seconds < web.TIMEOUT_S]
        assert waits == [*(0.1 * 2**n for n in range(6)), MOST_DELAY_S, MOST_DELAY_S]
        monkeypatch.undo()

    served(test, token=TOKEN)
    assert caplog.text.count("no token or a wrong one") == LINES_OF_SOURCE


def test_idle_connections_are_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(web, "TIMEOUT_S", 0.3)

    def test(server: WebServer) -> None:
        with connections(server, 3) as (silent, slow, again):
            slow.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
            if server._tls is None:
                again.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert all_of(again).endswith(b"serving\n")
            for raw in (silent, slow):
                assert b"200" not in all_of(raw)
        eventually(lambda: not server._http.connections and not server._arriving)  # type: ignore[union-attr]

    served(test)
    authority = Authority(tmp_path, "ours")
    served(test, tls=ServerTls(*authority.sign("server")).context())


def unread(server: WebServer, raw: socket.socket) -> None:
    """Ask for a picture that no buffer holds."""
    server.board.picture = lambda *_: (bytes(2**26), "image/jpeg")  # type: ignore[method-assign,assignment]
    raw.sendall(b"GET /picture/original?sender=s HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(web, "TIMEOUT_S", 0.3)

    def test(server: WebServer) -> None:
        with connections(server, 1) as (raw,):
            unread(server, raw)
            eventually(lambda: "was not read" in caplog.text)
            eventually(lambda: not server._http.connections)  # type: ignore[union-attr]

    served(test)
    assert "Traceback" not in caplog.text


def test_a_connection_that_does_not_close_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        """A closed transport whose client does not take the rest."""

        aborted = False

        def is_closing(self) -> bool:
            return True

        def abort(self) -> None:
            self.aborted = True

    monkeypatch.setattr(web, "TIMEOUT_S", 0.01)

    async def test() -> None:
        async with Engine(perception()) as engine, WebServer(LOOPBACK, Board(engine)) as server:
            stuck = Stuck()
            server._transports.add(stuck)  # type: ignore[arg-type]
            await until(lambda: stuck.aborted)

    run(test)


@pytest.mark.parametrize("encrypted", [False, True])
def test_closing_leaves_nothing_open(encrypted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the block ends by an error; what stays open is a ResourceWarning, which fails the test."""
    monkeypatch.setattr(web, "TIMEOUT_S", 600.0)  # closing waits for no client
    authority = Authority(tmp_path, "ours")
    tls = ServerTls(*authority.sign("server")).context() if encrypted else None
    trusting = ssl.create_default_context(cafile=str(authority.file))
    opened: list[socket.socket] = []

    def open_all(server: WebServer) -> None:
        opened.extend(socket.create_connection((HOST, server.endpoint.port), timeout=20) for _ in range(4))
        silent, half, used, slow = opened
        half.sendall(b"\x16\x03" if encrypted else b"GET / HT")
        if encrypted:
            opened[2:] = [trusting.wrap_socket(raw, server_hostname="localhost") for raw in opened[2:]]
            used, slow = opened[2:]
        used.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert used.recv(4096).startswith(b"HTTP/1.1 200")
        unread(server, slow)
        assert slow.recv(100)
        eventually(lambda: len(server._http.connections) + len(server._arriving) == 4)  # type: ignore[union-attr]
        del silent

    async def test() -> None:
        async with Engine(perception()) as engine:
            server = WebServer(LOOPBACK, Board(engine), tls=tls)

            async def fails() -> None:
                async with server:
                    await asyncio.to_thread(open_all, server)
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await fails()
            await server.close()  # again is no mistake
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((HOST, server.endpoint.port), timeout=20)
        gc.collect()

    try:
        run(test)
        for raw in opened:
            with suppress(OSError):  # of the TLS that ends without a word
                all_of(raw)
    finally:
        for raw in opened:
            raw.close()


def test_a_defect_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fails(_: str | None) -> dict[str, object]:
        raise ZeroDivisionError

    def test(server: WebServer) -> None:
        server.board.state = fails  # type: ignore[method-assign]
        response, body = get(server, "/state")
        assert (response.status, body) == (500, b"Internal Server Error\n")
        assert get(server, "/health")[0].status == 200

    served(test)
    assert "the page failed on /state" in caplog.text


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
                    await WebServer(Endpoint(HOST, taken.getsockname()[1]), Board(engine)).start()

        run(test)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browse(server: WebServer, folder: Path, awaited: str) -> tuple[str, str]:
    """The page as a browser shows it as soon as it has some text, and what the browser logs."""
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'user'}"),
        *("--enable-logging=stderr", "--dump-dom", f"http://{server.endpoint}/"),
    ]
    for budget_ms in (5_000, 20_000, 60_000):  # of the browser's own clock, which a slow machine does not keep
        budget = [f"--virtual-time-budget={budget_ms}"]
        done = subprocess.run(
            command[:-2] + budget + command[-2:], capture_output=True, text=True, timeout=100, check=True
        )
        if awaited in done.stdout:
            break
    return done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (0, ("1 sender connected, no frames at the moment", "is connected; no frame of it has come yet.")),
        (2, ("was decoded: 2 damaged.", "since the start: 2 damaged", '<rect class="lost"')),
    ],
)
def test_the_page_shows_no_picture_where_nothing_was_decoded(
    damaged: int, words: tuple[str, ...], tmp_path: Path
) -> None:
    def test(server: WebServer) -> None:
        for n in range(damaged):
            submit(server, Frame("grpc:1", n, b"garbage"))
        page, errors = browse(server, tmp_path, words[0])
        for word in words:
            assert word in page
        assert not re.findall(r".*CONSOLE.*", errors)
        figures = re.findall(r"<figure[^>]*>", page)
        assert len(figures) == 3
        assert all("hidden" in figure for figure in figures)

    served(test)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    def test(server: WebServer) -> None:
        done_with = threading.Event()

        def send() -> None:
            """Frames for as long as the browser looks: a sender that is silent for three seconds is not live."""
            number = 0
            while not done_with.is_set():
                original = as_jpeg(streets()[number % 4].image_uint8_HW3)
                submit(server, Frame("grpc:1", number, stream(number), original=original))
                number += 1
                done_with.wait(0.1)

        sending = threading.Thread(target=send)
        sending.start()
        try:
            page, errors = browse(server, tmp_path, 'data-ready="yes"')
        finally:
            done_with.set()
            sending.join()
        assert 'data-ready="yes"' in page, errors[-2000:]
        assert not re.findall(r".*CONSOLE.*", errors)  # no error of a script, nothing that the policy forbids
        assert EVIL not in page
        assert "&lt;img src=x onerror=alert(1)&gt;" in page
        for words in ("live, 1 sender", "bicyclist", "entropy decoding", "13 ms from sender to answer"):
            assert words in page
        assert re.search(r"frame \d+ · 96", page)
        assert re.search(r'<canvas id="overlay" width="96" height="64"', page)
        assert re.search(r'<figure id="original-figure"><canvas', page)  # shown: it was sent

    served(test)
