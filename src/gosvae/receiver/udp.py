"""Streams over UDP: a sender that paces its packets, a receiver that gives back frames when their time is over.

Nothing is acknowledged or sent again. `docs/link.md` says what stands in the datagrams; they are neither encrypted nor
authenticated.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self

from gosvae.bitstream import MAX_SLICES
from gosvae.errors import ConfigError
from gosvae.packets.inlet import DEFAULT_DEADLINE_MS, Inlet
from gosvae.packets.packet import DEFAULT_MTU_BYTES, MAX_MTU_BYTES, packetise
from gosvae.packets.protection import REPAIR_OVERHEAD_BYTES, protect
from gosvae.packets.reassembly import ReceivedFrame

__all__ = ["DEFAULT_DEADLINE_MS", "Inlet", "OnFrame", "UdpCounters", "UdpReceiver", "UdpSender", "serve_udp"]

log = logging.getLogger(__name__)

OnFrame = Callable[[ReceivedFrame], Awaitable[None] | None]
"""What a receiver does with a frame: a function or a coroutine function."""
QUEUED_FRAMES = 64
QUEUED_BYTES = 2**25
SOCKET_BUFFER_BYTES = 2**21
"""What the receiver asks the operating system to hold for it; it may give less."""


@dataclass(frozen=True)
class UdpCounters:
    """What a receiver has seen. `UdpReceiver.inlet` has those of packets, repair packets and frames.

    Attributes:
        datagrams, octets: that arrived, and the bytes in them.
        expired: frames that were closed by their deadline.
        delivered: frames that `on_frame` was called with.
        dropped: frames that were too old when `on_frame` was ready for the next: it is slower than the senders.
        failed: frames that `on_frame` raised an exception for; it is logged.
    """

    datagrams: int = 0
    octets: int = 0
    expired: int = 0
    delivered: int = 0
    dropped: int = 0
    failed: int = 0


class UdpReceiver(asyncio.DatagramProtocol):
    """Listens on a port and calls a function with each frame, complete or with slices missing. Made by `open`.

    Datagrams are taken apart when they arrive, whatever they are; none waits in this process. Frames wait for
    `on_frame` in a queue; where that is full the oldest are dropped and counted, so that the newest come through.
    """

    def __init__(self, on_frame: OnFrame, inlet: Inlet, *, max_frames: int, max_bytes: int) -> None:
        if min(max_frames, max_bytes) < 1:
            raise ConfigError(f"a queue of {max_frames} frames and {max_bytes} bytes: expected at least 1 of each")
        self.inlet = inlet
        self._on_frame = on_frame
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._queue: deque[ReceivedFrame] = deque()
        self._queued_bytes = 0
        self._counts: Counter[str] = Counter()
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._worker: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        on_frame: OnFrame,
        *,
        inlet: Inlet | None = None,
        max_frames: int = QUEUED_FRAMES,
        max_bytes: int = QUEUED_BYTES,
    ) -> Self:
        """Listen; `async with await UdpReceiver.open(...)` closes again.

        Args:
            host: address of the interface, `0.0.0.0` or `::` for all.
            port: 0 for any that is free; `address` says which.
            on_frame: is called with one frame after the other, never with two at once.
            inlet: with a deadline and limits of its own.
            max_frames, max_bytes: that wait for `on_frame`.

        Raises:
            OSError: the address cannot be listened on.
            ConfigError: a queue that holds nothing.
        """
        receiver = cls(on_frame, inlet or Inlet(), max_frames=max_frames, max_bytes=max_bytes)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: receiver, local_addr=(host, port)
        )
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        receiver._transport = transport
        receiver._worker = asyncio.create_task(receiver._work())
        return receiver

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    @property
    def counters(self) -> UdpCounters:
        """What happened so far."""
        return UdpCounters(**{f.name: self._counts[f.name] for f in fields(UdpCounters)})

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Called by asyncio with each datagram."""
        del addr
        self._counts["datagrams"] += 1
        self._counts["octets"] += len(data)
        self._put(self.inlet.add(data, asyncio.get_running_loop().time()))
        self._set_timer()

    def error_received(self, exc: Exception) -> None:
        """Called by asyncio where the operating system reports an error; a receiver has no use for it."""
        log.debug("UDP: %s", exc)

    def _set_timer(self) -> None:
        deadline_s = self.inlet.next_deadline_s
        if self._timer is None and deadline_s is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        """Close what is due. A timer may come a little early: the clock has a resolution."""
        self._timer = None
        done = self.inlet.expire(asyncio.get_running_loop().time())
        self._counts["expired"] += len(done)
        self._put(done)
        self._set_timer()

    def _put(self, frames: Sequence[ReceivedFrame]) -> None:
        for frame in frames:
            self._queue.append(frame)
            self._queued_bytes += len(frame.stream)
        while len(self._queue) > self._max_frames or self._queued_bytes > self._max_bytes:
            self._queued_bytes -= len(self._queue.popleft().stream)
            self._counts["dropped"] += 1
        if self._queue:
            self._ready.set()

    async def _work(self) -> None:
        """Give one frame after the other to `on_frame`."""
        while True:
            await self._ready.wait()
            while self._queue:
                frame = self._queue.popleft()
                self._queued_bytes -= len(frame.stream)
                await self._deliver(frame)
            self._ready.clear()

    async def _deliver(self, frame: ReceivedFrame) -> None:
        self._counts["delivered"] += 1
        try:
            result = self._on_frame(frame)
            if inspect.isawaitable(result):
                await result
        except Exception:  # whatever the caller's function raises, the next frame is welcome
            self._counts["failed"] += 1
            log.exception("frame %d of stream %08x", frame.frame, frame.stream_id)

    async def close(self) -> None:
        """Stop listening; frames that wait, and what is there of those in flight, are still delivered."""
        if self._transport is None or self._worker is None:
            return
        self._transport.close()
        if self._timer is not None:
            self._timer.cancel()
        self._put(self.inlet.flush())
        while self._ready.is_set():
            await asyncio.sleep(0.001)
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        self._transport = self._worker = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def serve_udp(host: str, port: int, on_frame: OnFrame, *, inlet: Inlet | None = None) -> None:
    """Receive until cancelled; arguments and errors as `UdpReceiver.open`."""
    async with await UdpReceiver.open(host, port, on_frame, inlet=inlet):
        await asyncio.get_running_loop().create_future()


class UdpSender(asyncio.DatagramProtocol):
    """Sends streams to one address, with repair packets and at a pace. Made by `open`.

    Attributes:
        stream_id: of this session.
        frames, datagrams, octets: sent so far; octets without the headers of IP and UDP (28 bytes a datagram for IPv4).
        errors: reports of the operating system, such as that nobody listens; sending goes on.
    """

    def __init__(
        self,
        *,
        stream_id: int | None,
        overhead: float,
        classes: Sequence[tuple[int, float]],
        mtu_bytes: int,
        slices_per_packet: int,
        kbps: float | None,
    ) -> None:
        if kbps is not None and not kbps > 0:
            raise ConfigError(f"a pace of {kbps} kbit/s: expected more than 0, or None for no limit")
        if not 2 * REPAIR_OVERHEAD_BYTES <= mtu_bytes - REPAIR_OVERHEAD_BYTES <= MAX_MTU_BYTES - REPAIR_OVERHEAD_BYTES:
            raise ConfigError(f"datagrams of {mtu_bytes} bytes: expected {3 * REPAIR_OVERHEAD_BYTES}..{MAX_MTU_BYTES}")
        self.stream_id = secrets.randbits(32) if stream_id is None else stream_id
        self.frames = self.datagrams = self.octets = self.errors = 0
        self._overhead, self._classes, self._mtu_bytes = overhead, classes, mtu_bytes
        self._slices_per_packet, self._kbps = slices_per_packet, kbps
        self._free_at_s = 0.0
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        *,
        stream_id: int | None = None,
        overhead: float = 0.0,
        classes: Sequence[tuple[int, float]] = (),
        mtu_bytes: int = DEFAULT_MTU_BYTES,
        slices_per_packet: int = MAX_SLICES,
        kbps: float | None = None,
    ) -> Self:
        """A sender; `async with await UdpSender.open(...)` closes again.

        Args:
            stream_id: None: a random one.
            overhead, classes: of repair packets, as in `protect`; 0: none.
            mtu_bytes: the longest datagram, repair packets too.
            slices_per_packet: as in `packetise`; 1 so that a lost packet takes one slice.
            kbps: pace in 1000 bits a second, of the datagrams without the headers of IP and UDP; None: as fast as it
                goes, which overruns the buffers of most links and of a receiver on loopback too.

        Raises:
            OSError: the host is not known.
            ConfigError: an impossible pace or MTU.
        """
        sender = cls(
            stream_id=stream_id,
            overhead=overhead,
            classes=classes,
            mtu_bytes=mtu_bytes,
            slices_per_packet=slices_per_packet,
            kbps=kbps,
        )
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: sender, remote_addr=(host, port)
        )
        sender._transport = transport
        return sender

    def pause_writing(self) -> None:
        """Called by asyncio where the operating system takes no more."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Called by asyncio where it takes more again."""
        self._writable.set()

    def error_received(self, exc: Exception) -> None:
        """Called by asyncio where the operating system reports an error."""
        self.errors += 1
        log.debug("UDP: %s", exc)

    async def send(self, stream: bytes) -> int:
        """Send a stream as the next frame and return how many bytes its datagrams have; ends with the last one.

        Raises:
            BitstreamError, PacketError: as `packetise` and `protect`.
            MissingDependencyError: repair packets are wanted and raptorq is not installed.
            ConfigError: the sender is closed.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConfigError("this sender is closed: open another")
        protected = self._overhead > 0 or bool(self._classes)
        datagrams = packetise(
            stream,
            stream_id=self.stream_id,
            frame=self.frames,
            mtu_bytes=self._mtu_bytes - (REPAIR_OVERHEAD_BYTES if protected else 0),
            slices_per_packet=self._slices_per_packet,
        )
        if protected:
            datagrams = protect(datagrams, overhead=self._overhead, classes=self._classes, mtu_bytes=self._mtu_bytes)
        self.frames += 1
        for data in datagrams:
            await self._pace(len(data))
            self._transport.sendto(data)
            self.datagrams += 1
            self.octets += len(data)
        return sum(map(len, datagrams))

    async def _pace(self, n_bytes: int) -> None:
        """Wait until the link is free, and take it for so many bytes."""
        await self._writable.wait()
        if self._kbps is None:
            await asyncio.sleep(0)
            return
        now_s = asyncio.get_running_loop().time()
        start_s = max(now_s, self._free_at_s)
        self._free_at_s = start_s + 8 * n_bytes / (1000 * self._kbps)
        if start_s > now_s:
            await asyncio.sleep(start_s - now_s)

    async def close(self) -> None:
        """Send what is still buffered and close."""
        if self._transport is not None:
            self._transport.close()
            await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
