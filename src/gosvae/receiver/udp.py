"""Receiver's end of streams over UDP: datagrams become frames, which are closed when complete or at a deadline.

Lost datagrams are not sent again. Feedback tells senders of videos which of their frames were decoded.

`docs/link.md` describes the datagrams. With a key they are encrypted and authenticated, see `gosvae.packets.sealed`;
without one they are neither.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self

from gosvae.errors import ConfigError
from gosvae.packets.inlet import Inlet
from gosvae.packets.reassembly import ReceivedFrame
from gosvae.packets.sealed import Opener, Sealer
from gosvae.protocol.feedback import Feedback

log = logging.getLogger(__name__)

OnFrame = Callable[[ReceivedFrame], Awaitable[None] | None]
"""Function or coroutine function that is called with every frame."""
QUEUED_FRAMES = 64
"""Default of the greatest number of frames in the queue."""
QUEUED_BYTES = 2**25
"""Default of the greatest number of bytes in the queue."""
SOCKET_BUFFER_BYTES = 2**21
"""Number of bytes that the receiver asks the operating system to buffer; the system may give fewer."""


MOST_PEERS = 256
"""Greatest number of streams whose senders get feedback; the one that was silent the longest is forgotten first."""


@dataclass(frozen=True)
class UdpCounters:
    """Numbers of datagrams and frames; `UdpReceiver.inlet` has those of packets and repair packets.

    Attributes:
        datagrams, octets: number of datagrams that arrived, and of the bytes in them.
        expired: number of frames that were closed by their deadline.
        delivered: number of frames that `on_frame` was called with.
        dropped: number of frames that were removed from a full queue, because `on_frame` was too slow.
        failed: number of frames for which `on_frame` raised an exception; it is logged.
    """

    datagrams: int = 0
    octets: int = 0
    expired: int = 0
    delivered: int = 0
    dropped: int = 0
    failed: int = 0


class UdpReceiver(asyncio.DatagramProtocol):
    """Receiver that calls a function with every frame, complete or with slices missing. `open` makes one.

    Datagrams are processed when they arrive, without a queue. Frames wait for `on_frame` in a queue; if it is full, the
    oldest frames are dropped and counted.

    Attributes:
        inlet: reassembly with its counters.
        opener: opener of sealed datagrams with its counters; None without a key.
    """

    def __init__(
        self, on_frame: OnFrame, inlet: Inlet, *, max_frames: int, max_bytes: int, key: bytes | None = None
    ) -> None:
        if min(max_frames, max_bytes) < 1:
            raise ConfigError(f"a queue of {max_frames} frames and {max_bytes} bytes: expected at least 1 of each")
        self.inlet, self._key = inlet, key
        self.opener = None if key is None else Opener(key)
        self._on_frame = on_frame
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._queue: deque[ReceivedFrame] = deque()
        self._queued_bytes = 0
        self._counts: Counter[str] = Counter()
        self._peers: OrderedDict[int, tuple[Any, ...]] = OrderedDict()
        self._sealers: dict[int, Sealer] = {}
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
        key: bytes | None = None,
    ) -> Self:
        """Return a receiver that listens; `async with await UdpReceiver.open(...)` closes it at the end.

        Args:
            host: address of the interface; `0.0.0.0` or `::` for all interfaces.
            port: port; 0 takes any free port, which `address` then has.
            on_frame: function that is called with one frame after the other, never with two at once.
            inlet: reassembly with its deadline and limits; None means the defaults.
            max_frames, max_bytes: greatest number of frames, and of their bytes, that wait for `on_frame`.
            key: key of at least 32 bytes that senders know. Only datagrams that are sealed with it are taken. None
                takes only datagrams that are not sealed.

        Raises:
            OSError: the receiver cannot listen on the address.
            ConfigError: the queue would hold nothing, or the key is too short.
            MissingDependencyError: there is a key, and cryptography is not installed.
        """
        receiver = cls(on_frame, inlet or Inlet(), max_frames=max_frames, max_bytes=max_bytes, key=key)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: receiver, local_addr=(host, port)
        )
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        receiver._transport = transport
        receiver._worker = asyncio.create_task(receiver._work())
        return receiver

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the receiver listens on."""
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    @property
    def counters(self) -> UdpCounters:
        """Numbers of datagrams and frames so far."""
        return UdpCounters(**{f.name: self._counts[f.name] for f in fields(UdpCounters)})

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Take a datagram; called by asyncio."""
        self._counts["datagrams"] += 1
        self._counts["octets"] += len(data)
        datagram = data if self.opener is None else self.opener.open(data)
        if datagram is None:
            return
        done = self.inlet.add(datagram, asyncio.get_running_loop().time())
        for frame in done:
            self._peers[frame.stream_id] = addr
            self._peers.move_to_end(frame.stream_id)
            if len(self._peers) > MOST_PEERS:
                silent, _ = self._peers.popitem(last=False)
                self._sealers.pop(silent, None)
        self._put(done)
        self._set_timer()

    def tell(self, feedback: Feedback) -> None:
        """Send feedback to the address from which the latest frame of its stream came."""
        addr = self._peers.get(feedback.stream_id)
        if addr is None or self._transport is None:
            return
        data = feedback.pack()
        if self._key is not None:
            sealer = self._sealers.get(feedback.stream_id)
            if sealer is None:
                sealer = self._sealers[feedback.stream_id] = Sealer(self._key, feedback.stream_id, feedback=True)
            data = sealer.seal(data)
        self._transport.sendto(data, addr)

    def error_received(self, exc: Exception) -> None:
        """Log an error of the operating system; called by asyncio."""
        log.debug("UDP: %s", exc)

    def _set_timer(self) -> None:
        deadline_s = self.inlet.next_deadline_s
        if self._timer is None and deadline_s is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        """Close the frames that are due. A timer may fire a little early, because the clock has a resolution."""
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
        """Call `on_frame` with one frame after the other."""
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
        except Exception:  # after any error of `on_frame`, the next frame is taken
            self._counts["failed"] += 1
            log.exception("frame %d of stream %08x", frame.frame, frame.stream_id)

    async def close(self) -> None:
        """Stop listening; frames in the queue, and the slices of incomplete frames, are still delivered."""
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
    """Receive until the task is cancelled; arguments and errors are those of `UdpReceiver.open`."""
    async with await UdpReceiver.open(host, port, on_frame, inlet=inlet):
        await asyncio.get_running_loop().create_future()
