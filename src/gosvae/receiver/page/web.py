"""HTTP server of a receiver: the live page, the data that the page shows, and the metrics that Prometheus reads.

The server is read-only and runs on the receiver's event loop; aiohttp speaks HTTP. Limits: the number of connections,
the length of a request's head, a time-out for everything that a client may delay, and a token where one is set. On a
loopback address the server also checks the host that a browser asks for, so that no other site can read the page.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
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

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 48
"""Number of connections that may be open at once, TLS handshakes included; one more is closed at once."""
TIMEOUT_S = 15.0
"""Seconds that a client may take for a TLS handshake, for the head of a request, and to read an answer."""
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
        metrics: returns the text that Prometheus reads; None for no metrics.
        token: word that readers must give, as `Authorization: Bearer TOKEN` or, in a browser, as the password of any
            user; None for no token.
        tls: certificate and key; None for no encryption.

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
        self._arriving: dict[asyncio.Task[None], socket.socket] = {}
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
            LinkError: the address cannot be listened on.
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
            listener = _listen(self.endpoint)
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
        for connection in self._arriving.values():  # a handshake that sees the end of its connection fails at once
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        await asyncio.gather(self._reaper, *self._arriving, return_exceptions=True)
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
        if len(http.connections) + len(self._arriving) >= MAX_CONNECTIONS:
            log.warning("refused %s: too many connections to the page", address[0])
            connection.close()
            return
        task = loop.create_task(self._open(http, connection, address[0]))
        self._arriving[task] = connection
        task.add_done_callback(self._arriving.pop)

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
            log.warning("refused %s: TLS: %s", peer, getattr(error, "reason", None) or error)
        else:
            self._transports.add(transport)

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
        try:
            answer = await self._answer(request)
        except Exception:
            log.exception("the page failed on %s", request.path)
            answer = _status(HTTPStatus.INTERNAL_SERVER_ERROR)
        headers = {**HEADERS, "Content-Type": answer.media_type, **answer.more}
        response: web.Response = self._web.Response(body=answer.body, status=answer.status, headers=headers)
        # Written here, and not by aiohttp after the return, so that there is a time-out.
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            log.warning("refused %s: the page: an answer was not read for %g s", request.remote, TIMEOUT_S)
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
        if path == "/health":
            return _Answer(b"serving\n", PLAIN)
        if self.hosts is not None and self.token is None and _host(request) not in self.hosts:
            return _refuse(request, HTTPStatus.MISDIRECTED_REQUEST, "wrong host")
        if self.token is not None and not _knows(request, self.token):
            asked = {"WWW-Authenticate": 'Basic realm="gosvae: any user, the token as password"'}
            return _refuse(request, HTTPStatus.UNAUTHORIZED, "no token or a wrong one", asked)
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
            picture = await asyncio.to_thread(board.picture, sender, kind)
            if picture is not None:
                return _Answer(*picture)
        return _status(HTTPStatus.NOT_FOUND)


def _listen(endpoint: Endpoint) -> socket.socket:
    """Return a listening socket that does not block; IPv6 addresses take IPv4 clients too where the system can."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    listener = socket.create_server(
        (endpoint.host, endpoint.port),
        family=family,
        backlog=64,
        dualstack_ipv6=family == socket.AF_INET6 and socket.has_dualstack_ipv6(),
    )
    listener.setblocking(False)
    return listener


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


def _refuse(request: web.BaseRequest, status: HTTPStatus, why: str, more: dict[str, str] | None = None) -> _Answer:
    """Return the answer of a status to a client that may not read, and log the reason."""
    log.warning("refused %s: the page: %s", request.remote, why)
    return _status(status, more)


def _status(status: HTTPStatus, more: dict[str, str] | None = None) -> _Answer:
    """Return the answer that names a status."""
    return _Answer(f"{status.phrase}\n".encode(), PLAIN, status, more or {})
