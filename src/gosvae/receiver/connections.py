"""Connections to a listening port: found among the open descriptors of this process, counted by source, and ended.

gRPC shows calls to a program, but not connections. The operating system lists the descriptors of the process. With a
duplicate of a descriptor, the program can read both addresses of a connection and shut it down, as if the other end had
left.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

MOST_DESCRIPTORS = 65536
"""Greatest limit on open descriptors that `raise_descriptor_limit` asks for."""


class Address(NamedTuple):
    """Address of the other end of a connection."""

    host: str
    port: int


def address_of(peer: str) -> Address | None:
    """Return the address in gRPC's name of a peer, such as `ipv4:192.0.2.1:5000`; None if the name has no address.

    An IPv4 address in IPv6 form is returned in IPv4 form.
    """
    family, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if family not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return Address(plain_host(host.strip("[]")), int(port))


def plain_host(host: str) -> str:
    """Return an IP address without its zone; an IPv4 address in IPv6 form is returned in IPv4 form."""
    host = host.partition("%")[0]
    with contextlib.suppress(ValueError):
        mapped = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
        return host if mapped is None else str(mapped)
    return host


@contextlib.contextmanager
def _duplicate(descriptor: int) -> Iterator[socket.socket | None]:
    """Give a socket of its own for a descriptor of a stream socket; None for anything else."""
    with contextlib.ExitStack() as stack:
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                yield None
                return
            found = stack.enter_context(socket.socket(fileno=os.dup(descriptor)))
        except OSError:  # it was closed in the meantime
            yield None
            return
        yield found if found.type == socket.SOCK_STREAM and found.family != socket.AF_UNIX else None


def _sockets(port: int) -> Iterator[tuple[Address, socket.socket]]:
    """Yield the connections to a port of this process with the addresses of their other ends."""
    folder = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
    try:
        descriptors = [int(file.name) for file in folder.iterdir()]
    except OSError:  # a system without such a folder
        return
    for descriptor in descriptors:
        with _duplicate(descriptor) as found:
            if found is None:
                continue
            try:
                ours, theirs = found.getsockname(), found.getpeername()
            except OSError:  # it listens, or its other end has left
                continue
            if ours[1] == port:
                yield Address(plain_host(theirs[0]), theirs[1]), found


def end(port: int, addresses: Collection[Address]) -> None:
    """Shut down the connections to a port of this process from these addresses."""
    for address, found in _sockets(port):
        if address in addresses:
            with contextlib.suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)


class Watch:
    """Limit on the connections of each source address to a port.

    Args:
        port: port of this process.
        most: greatest number of connections of a source address.
    """

    def __init__(self, port: int, most: int) -> None:
        self.port, self.most = port, most
        self._seen: dict[Address, int] = {}
        self._sweeps = 0

    def sweep(self, busy: Collection[Address]) -> dict[str, int]:
        """End the connections of each source address beyond the limit.

        Connections whose addresses are not in `busy` are ended first, the newest before older ones.

        Returns:
            Number of connections that were ended, by source address.
        """
        self._sweeps += 1
        there = [address for address, _ in _sockets(self.port)]
        self._seen = {address: self._seen.get(address, self._sweeps) for address in there}
        excess = {host: n - self.most for host, n in Counter(a.host for a in there).items() if n > self.most}
        for host, count in excess.items():
            mine = [address for address in there if address.host == host]
            mine.sort(key=lambda address: (address in busy, -self._seen[address]))
            end(self.port, set(mine[:count]))
        return excess


def _import_resource() -> Any:
    """Return the module `resource`; None on systems without it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource


def descriptor_limit() -> int:
    """Return the number of descriptors that this process may open; 0 if the limit is absent or not known."""
    resource = _import_resource()
    if resource is None:
        return 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else int(soft)


def raise_descriptor_limit() -> None:
    """Raise the limit on open descriptors of this process as far as the system allows, up to `MOST_DESCRIPTORS`."""
    resource = _import_resource()
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
