"""Socket of the page's server, and deadlines of connections that wait for a whole request."""

from __future__ import annotations

import asyncio
import math
import socket

from gosvae.protocol.security import Endpoint


class Waiting:
    """Connections that wait for a whole head of a request, each with a deadline, in the order in which they began.

    Args:
        most: number of connections above which ended connections are removed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._timers: dict[asyncio.Transport, asyncio.TimerHandle] = {}

    def begin(self, transport: asyncio.Transport, seconds: float) -> None:
        """Begin the wait of a connection, which is aborted after a number of seconds."""
        if len(self._timers) > self._most:
            for ended in [transport for transport in self._timers if transport.is_closing()]:
                self.end(ended)
        self._timers[transport] = asyncio.get_running_loop().call_later(seconds, self._give_up, transport)

    def end(self, transport: asyncio.BaseTransport | None) -> None:
        """Remove the deadline of a connection, because its request has arrived or it has ended."""
        timer = self._timers.pop(transport, None) if isinstance(transport, asyncio.Transport) else None
        if timer is not None:
            timer.cancel()

    @property
    def until_s(self) -> float:
        """Deadline of the connection that has waited longest, on the clock of the event loop; infinity for none."""
        longest = self._longest()
        return math.inf if longest is None else self._timers[longest].when()

    def abort_longest(self) -> None:
        """Abort the connection that has waited longest, if there is one."""
        longest = self._longest()
        if longest is not None:
            self._give_up(longest)

    def _longest(self) -> asyncio.Transport | None:
        return next((transport for transport in self._timers if not transport.is_closing()), None)

    def clear(self) -> None:
        """Remove all deadlines."""
        for transport in list(self._timers):
            self.end(transport)

    def _give_up(self, transport: asyncio.Transport) -> None:
        self.end(transport)
        transport.abort()


def listen(endpoint: Endpoint) -> socket.socket:
    """Return a listening socket that does not block; on an IPv6 address it takes IPv4 clients too if the system can."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    listener = socket.create_server(
        (endpoint.host, endpoint.port),
        family=family,
        backlog=128,
        dualstack_ipv6=family == socket.AF_INET6 and socket.has_dualstack_ipv6(),
    )
    listener.setblocking(False)
    return listener
