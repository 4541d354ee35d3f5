"""HTTP server of a receiver: the live page, the data that the page shows, and the metrics that Prometheus reads.

The server is read-only and runs on the receiver's event loop; aiohttp speaks HTTP. The number of connections and the
length of a request's head are limited, everything that a client may delay has a deadline, and a token may be required.
If all connections are taken, a new one replaces the one that has waited longest for a whole request. A few places are
kept for `/health` and `/metrics`. On a loopback address the server also checks the host that a browser asks for, so
that no other site can read the page.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import math
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from weakref import WeakSet

from gosvae.errors import LinkError, MissingDependencyError
from gosvae.protocol.security import Endpoint, token_agrees
from gosvae.receiver.metrics import CONTENT_TYPE
from gosvae.receiver.page.board import PICTURE_KINDS, Board
from gosvae.receiver.page.door import Waiting, listen
from gosvae.receiver.strangers import Backoff, LimitedLog

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger(__name__)

MAX_REQUESTS = 48
"""Greatest number of requests that are answered at once, except those to `RESERVED`."""
RESERVED = ("/health", "/metrics")
"""Paths that have places of their own, so that the receiver can be watched while the page is flooded."""
MAX_CONNECTIONS = 64
"""Greatest number of connections that are open at once, TLS handshakes included. A further one replaces the connection
that has waited longest for a whole request; if no connection waits, the new one is closed."""
TIMEOUT_S = 15.0
"""Seconds that a client may take for a TLS handshake, for the whole head of a request from the beginning of its
connection or the end of the answer before, and to read an answer."""
LINGER_S = 1.0
"""Seconds for which the server reads, and ignores, the body of a request that it has already answered."""
GRACE_S = 0.5
"""Seconds that answers under way have to end when the server is closed."""
MAX_LINE_BYTES = 8190
"""Longest line in the head of a request, in bytes."""
MAX_HEADERS = 100
"""Largest number of headers in a request."""
STATIC = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_LAST = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE})
"""Statuses after which a connection is closed."""
PLAIN = "text/plain; charset=utf-8"
HEADERS = {
    "Server": "gosvae",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


@cache
def import_aiohttp() -> Any:
    """Return aiohttp's module `web`.

    Raises:
        MissingDependencyError: aiohttp is not installed.
    """
    try:
        from aiohttp import web
    except ImportError as error:
        raise MissingDependencyError(f"the live page needs aiohttp ({error}): pip install 'gosvae[serve]'") from None
    return web


@cache
def _static(name: str) -> bytes:
    """Return a file of the folder `static` beside this module."""
    return (resources.files(__name__.rpartition(".")[0]) / "static" / name).read_bytes()


class _Answer(NamedTuple):
    """Body, media type and status of an answer, and headers beyond `HEADERS`."""

    body: bytes
    media_type: str
    status: HTTPStatus = HTTPStatus.OK
    more: Mapping[str, str] = MappingProxyType({})


class WebServer:
    """Server of the live page: `async with WebServer(endpoint, board) as server` serves until the block ends.

    Args:
        endpoint: address to listen on. Port 0 takes any free port; after the start `endpoint` has its number.
        board: source of everything that the page shows.
        metrics: function that returns the text that Prometheus reads; None serves no metrics.
        token: token that readers must give, as `Authorization: Bearer TOKEN` or, in a browser, as the password of any
            user; None asks for no token.
        tls: TLS context with certificate and key; None serves without encryption.

    Raises:
        MissingDependencyError: aiohttp is not installed.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        board: Board,
        metrics: Callable[[], bytes] | None = None,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.endpoint, self.board, self.metrics, self.token = endpoint, board, metrics, token
        self.hosts = {"localhost", "127.0.0.1", "[::1]", endpoint.host} if endpoint.is_loopback else None
        self._tls = tls
        self._web = import_aiohttp()
        self._http: web.Server | None = None
        self._listener: socket.socket | None = None
        self._arriving: dict[asyncio.Task[None], tuple[socket.socket, float]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._waiting = Waiting(2 * MAX_CONNECTIONS)
        self._requests = 0
        self._log, self._backoff = LimitedLog(log), Backoff()
        self._transports: WeakSet[asyncio.Transport] = WeakSet()
        self._reaper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen for connections.

        Raises:
            LinkError: the server cannot listen on the address.
        """
        http_log = log.getChild("http")
        http_log.addFilter(_keep_traceback)
        http = self._web.Server(
            self._handle,
            logger=http_log,
            access_log=None,
            keepalive_timeout=TIMEOUT_S,
            lingering_time=LINGER_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
        )
        try:
            listener = listen(self.endpoint)
        except OSError as error:
            raise LinkError(f"cannot listen on {self.endpoint}: {error.strerror or error}; take another port") from None
        self.endpoint = Endpoint(self.endpoint.host, listener.getsockname()[1])
        self._http, self._listener = http, listener
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        self._reaper = asyncio.create_task(self._reap())

    async def close(self) -> None:
        """Stop listening and end every connection; answers under way have `GRACE_S` seconds."""
        http, self._http = self._http, None
        if http is None or self._listener is None or self._reaper is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._reaper.cancel()
        for connection, _ in self._arriving.values():  # a handshake that sees the end of its connection fails at once
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        await asyncio.gather(self._reaper, *self._arriving, *self._leaving, return_exceptions=True)
        self._waiting.clear()
        http.pre_shutdown()
        await http.shutdown(GRACE_S)
        for transport in list(self._transports):
            transport.abort()
        await asyncio.sleep(0)  # the event loop closes the sockets of ended transports in its next turn

    def _accept(self, listener: socket.socket) -> None:
        """Take one connection; the event loop calls this while connections wait."""
        http, loop = self._http, asyncio.get_running_loop()
        assert http is not None
        try:
            connection, address = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:  # such as too many open files: a pause, or this would be called without end
            log.warning("the page cannot take a connection: %s", error.strerror or error)
            loop.remove_reader(listener)
            loop.call_later(1.0, self._accept_again, listener)
            return
        if len(http.connections) + len(self._arriving) >= MAX_CONNECTIONS and not self._make_room():
            self._log.refused(address[0], "too many connections to the page")
            connection.close()
            return
        task = loop.create_task(self._open(http, connection, address[0]))
        self._arriving[task] = connection, loop.time() + TIMEOUT_S
        task.add_done_callback(lambda task: self._arriving.pop(task, None))

    def _make_room(self) -> bool:
        """End the connection that has waited longest for a whole request; False if there is none."""
        task = next(iter(self._arriving), None)  # a handshake of TLS that does not end
        until_s = math.inf if task is None else self._arriving[task][1]
        if min(self._waiting.until_s, until_s) == math.inf:
            return False
        if self._waiting.until_s < until_s:
            self._waiting.abort_longest()
            return True
        assert task is not None
        with contextlib.suppress(OSError):
            self._arriving.pop(task)[0].shutdown(socket.SHUT_RDWR)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return True

    def _accept_again(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def _open(self, http: web.Server, connection: socket.socket, peer: str) -> None:
        """Give a connection to aiohttp, after the TLS handshake if there is one."""
        seconds = None if self._tls is None else TIMEOUT_S
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                http, connection, ssl=self._tls, ssl_handshake_timeout=seconds, ssl_shutdown_timeout=seconds
            )
        except OSError as error:  # ssl.SSLError is one
            self._log.refused(peer, f"TLS: {getattr(error, 'reason', None) or str(error) or 'the connection ended'}")
        else:
            self._transports.add(transport)
            self._waiting.begin(transport, TIMEOUT_S)

    async def _reap(self) -> None:
        """Abort connections that were closed but whose client does not take the last bytes."""
        closing: set[asyncio.Transport] = set()
        while True:
            await asyncio.sleep(TIMEOUT_S)
            for transport in closing:
                transport.abort()
            closing = {transport for transport in self._transports if transport.is_closing()}

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        """Answer a request; a client that does not read its answer within `TIMEOUT_S` is cut off."""
        log.debug("%s %s %s", request.remote, request.method, request.path)
        transport = request.transport
        self._waiting.end(transport)
        self._requests += 1
        try:
            response = await self._respond(request)
        finally:
            self._requests -= 1
        if isinstance(transport, asyncio.Transport) and not transport.is_closing():
            self._waiting.begin(transport, TIMEOUT_S)
        return response

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        """Write the answer to a request and return it."""
        try:
            answer = await self._answer(request)
        except Exception:
            log.exception("the page failed on %s", request.path)
            answer = _status(HTTPStatus.INTERNAL_SERVER_ERROR)
        headers = {**HEADERS, "Content-Type": answer.media_type, **answer.more}
        response: web.Response = self._web.Response(body=answer.body, status=answer.status, headers=headers)
        if answer.status in _LAST:
            response.force_close()
        # Written here, and not by aiohttp after the return, so that there is a time-out.
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            self._log.refused(str(request.remote), f"the page: an answer was not read for {TIMEOUT_S:g} s")
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            log.debug("the connection of the page to %s broke", request.remote)
        return response

    async def _answer(self, request: web.BaseRequest) -> _Answer:
        """Return the answer to a request: who may read is checked before anything is looked up."""
        path, board = request.path, self.board
        if request.method not in ("GET", "HEAD"):
            return _status(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        if request.body_exists:  # what follows would else be read as the next request by whoever counts differently
            return self._refuse(request, HTTPStatus.BAD_REQUEST, f"a body behind {request.method}")
        if path == "/health":
            return _Answer(b"serving\n", PLAIN)
        if self._requests > MAX_REQUESTS and path not in RESERVED:
            return self._refuse(request, HTTPStatus.SERVICE_UNAVAILABLE, "too many requests", {"Retry-After": "1"})
        if self.hosts is not None and self.token is None and _host(request) not in self.hosts:
            return self._refuse(request, HTTPStatus.MISDIRECTED_REQUEST, "wrong host")
        if self.token is not None and not _knows(request, self.token):
            if "Authorization" in request.headers:
                await self._let_wait(request)
            asked = {"WWW-Authenticate": 'Basic realm="gosvae: any user, the token as password"'}
            return self._refuse(request, HTTPStatus.UNAUTHORIZED, "no token or a wrong one", asked)
        sender = request.query.get("sender")
        if path in STATIC:
            name, media_type = STATIC[path]
            return _Answer(_static(name), media_type)
        # In threads, so that pictures and statistics hold up no frame.
        if path == "/state":
            state = await asyncio.to_thread(board.state, sender)
            return _Answer(json.dumps(state).encode(), "application/json")
        if path == "/metrics" and self.metrics is not None:
            return _Answer(await asyncio.to_thread(self.metrics), CONTENT_TYPE)
        kind = next((kind for kind in PICTURE_KINDS if path == f"/picture/{kind}"), None)
        if kind is not None and sender is not None:
            expert = request.query.get("expert", "")
            picture = await asyncio.to_thread(board.picture, sender, kind, expert)
            if picture is not None:
                return _Answer(*picture)
        return _status(HTTPStatus.NOT_FOUND)

    async def _let_wait(self, request: web.BaseRequest) -> None:
        """Let the answer to a wrong token wait, meanwhile as a connection that may be ended for another."""
        delay_s = self._backoff.delay_s(str(request.remote))
        transport = request.transport
        if not delay_s or not isinstance(transport, asyncio.Transport):
            return
        self._waiting.begin(transport, TIMEOUT_S)
        self._requests -= 1
        self._backoff.waiting += 1
        try:
            await asyncio.sleep(delay_s)
        finally:
            self._backoff.waiting -= 1
            self._requests += 1
            self._waiting.end(transport)

    def _refuse(
        self, request: web.BaseRequest, status: HTTPStatus, why: str, more: dict[str, str] | None = None
    ) -> _Answer:
        """Return the answer of a status to a client that may not read, and log the reason."""
        self._log.refused(str(request.remote), f"the page: {why}")
        return _status(status, more)


def _keep_traceback(record: logging.LogRecord) -> bool:
    """Filter aiohttp's log: a malformed request is one line in this module's log, without a traceback."""
    from aiohttp.http import HttpProcessingError

    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    log.warning("refused %s: the page: a malformed request", *(record.args or ("a client",)))
    return False


def _host(request: web.BaseRequest) -> str:
    """Return the host that a request asks for, without its port."""
    host: str = request.headers.get("Host", "")
    return host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host


def _knows(request: web.BaseRequest, token: str) -> bool:
    """Return whether a request gives the token."""
    scheme, _, word = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            word = base64.b64decode(word, validate=True).decode("utf-8", "replace").partition(":")[2]
        except ValueError:
            return False
    elif scheme.lower() != "bearer":
        return False
    return token_agrees(word, token)


def _status(status: HTTPStatus, more: dict[str, str] | None = None) -> _Answer:
    """Return the answer that names a status."""
    return _Answer(f"{status.phrase}\n".encode(), PLAIN, status, more or {})
