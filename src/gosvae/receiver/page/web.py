"""The receiver's web server: the live page, its data, and what Prometheus reads. Reading only; nothing can be changed.

The HTTP is the standard library's. Limits: few connections, short requests, a time-out; a token where one is set; and
on a loopback address a check of the host that a browser asks for, so that no other site reads the page through it.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import ssl
import threading
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socket import AF_INET6, socket
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from gosvae.errors import LinkError
from gosvae.protocol.security import Endpoint, token_agrees
from gosvae.receiver.metrics import CONTENT_TYPE
from gosvae.receiver.page.board import PICTURE_KINDS, Board

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 48
TIMEOUT_S = 15.0
STATIC = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
HEADERS = {
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
def _static(name: str) -> bytes:
    return (resources.files("gosvae.receiver.page") / "static" / name).read_bytes()


class WebServer:
    """Serves until it is closed, in threads of its own: `with WebServer(...) as server`.

    Args:
        endpoint: where to listen; port 0 for any that is free, `endpoint` says which.
        board: what the page shows.
        metrics: gives what Prometheus reads; None: no metrics.
        token: asked for as `Authorization: Bearer TOKEN`, or by browsers as the password of any user; None: none.
        tls: None: not encrypted.

    Raises:
        LinkError: the address cannot be listened on.
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
        self.board, self.metrics, self.token = board, metrics, token
        try:
            self._server = _Server(endpoint, self, tls)
        except OSError as error:
            raise LinkError(f"cannot listen on {endpoint}: {error.strerror or error}; take another port") from None
        self.endpoint = Endpoint(endpoint.host, self._server.server_address[1])
        self.hosts = {"localhost", "127.0.0.1", "[::1]", endpoint.host} if endpoint.is_loopback else None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="gosvae-web", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop; requests that are being answered are not waited for."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Threads for connections, few of them."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, endpoint: Endpoint, web: WebServer, tls: ssl.SSLContext | None) -> None:
        if ":" in endpoint.host:
            self.address_family = AF_INET6
        self.web, self._tls = web, tls
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((endpoint.host, endpoint.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Called with each connection; one too many is closed at once."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            log.warning("refused %s: too many connections to the page", client_address[0])
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread, so that a slow handshake holds up nobody."""
        try:
            wrapped = self._secured(request, client_address)
            if wrapped is not None:
                super().process_request_thread(wrapped, client_address)
        finally:
            self._free.release()

    def _secured(self, request: socket, client_address: Any) -> socket | None:
        request.settimeout(TIMEOUT_S)
        if self._tls is None:
            return request
        try:
            return self._tls.wrap_socket(request, server_side=True)
        except OSError as error:  # ssl.SSLError is one
            log.warning("refused %s: TLS: %s", client_address[0], getattr(error, "reason", None) or error)
            self.shutdown_request(request)
            return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Called where a handler raised: a browser that has gone is no news."""
        log.debug("the page's connection to %s broke", client_address, exc_info=True)
        del request


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    server: _Server

    def version_string(self) -> str:
        """The header `Server`."""
        return "gosvae"

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name of the standard library
        """Called with each request."""
        log.debug("%s %s", self.client_address[0], format % arguments)

    def do_GET(self) -> None:
        """Answer a request."""
        web, parts = self.server.web, urlsplit(self.path)
        if parts.path == "/health":
            return self._answer(b"serving\n", "text/plain; charset=utf-8")
        if web.hosts is not None and web.token is None and self._host() not in web.hosts:
            return self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "wrong host")
        if web.token is not None and not self._knows(web.token):
            return self._refuse(HTTPStatus.UNAUTHORIZED, "no token or a wrong one")
        sender = parse_qs(parts.query, max_num_fields=8).get("sender", [None])[0]
        if parts.path in STATIC:
            name, media_type = STATIC[parts.path]
            return self._answer(_static(name), media_type)
        if parts.path == "/state":
            return self._answer(json.dumps(web.board.state(sender)).encode(), "application/json")
        if parts.path == "/metrics" and web.metrics is not None:
            return self._answer(web.metrics(), CONTENT_TYPE)
        kind = next((k for k in PICTURE_KINDS if parts.path == f"/picture/{k}"), None)
        if kind is not None and sender is not None:
            picture = web.board.picture(sender, kind)
            if picture is not None:
                return self._answer(*picture)
        return self._refuse(HTTPStatus.NOT_FOUND, None)

    def _host(self) -> str:
        host = self.headers.get("Host", "")
        return host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host

    def _knows(self, token: str) -> bool:
        scheme, _, word = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                word = base64.b64decode(word, validate=True).decode("utf-8", "replace").partition(":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        return token_agrees(word, token)

    def _refuse(self, status: HTTPStatus, why: str | None) -> None:
        if why is not None:
            log.warning("refused %s: the page: %s", self.client_address[0], why)
        self._answer(f"{status.phrase}\n".encode(), "text/plain; charset=utf-8", status)

    def _answer(self, data: bytes, media_type: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="gosvae: any user, the token as password"')
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
