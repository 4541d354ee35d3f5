"""Sender's end of streams over UDP: packets and repair packets are sent at a steady rate.

Nothing is sent twice. The receiver's feedback says which frames of a video it has decoded.

`docs/link.md` describes the datagrams. With a key they are encrypted and authenticated, see `gosvae.packets.sealed`;
without one they are neither.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from gosvae.bitstream import MAX_SLICES
from gosvae.errors import ConfigError, PacketError
from gosvae.packets.compact import compact_packets
from gosvae.packets.packet import DEFAULT_MTU_BYTES, FRAME_NUMBERS, MAX_MTU_BYTES, packetise
from gosvae.packets.protection import REPAIR_OVERHEAD_BYTES, protect
from gosvae.packets.sealed import SEALED_OVERHEAD_BYTES, Opener, Sealer
from gosvae.protocol.feedback import Feedback

log = logging.getLogger(__name__)


class UdpSender(asyncio.DatagramProtocol):
    """Sender of streams to one address, with repair packets, at a limited pace. `open` makes one.

    Attributes:
        stream_id: number that tells the streams of this sender from those of others.
        first_frame: number of its first frame.
        frames, datagrams, octets: numbers of frames, datagrams and bytes that were sent; the bytes do not include the
            headers of IP and UDP (28 bytes a datagram for IPv4).
        compact: whether the receiver has said that it takes compact packets.
        on_feedback: function that is called with the receiver's feedback on this stream.
        errors: number of errors that the operating system reported, such as that nobody listens; sending continues
            after an error.
    """

    def __init__(
        self,
        *,
        stream_id: int | None,
        first_frame: int | None,
        overhead: float,
        classes: Sequence[tuple[int, float]],
        mtu_bytes: int,
        slices_per_packet: int,
        kbps: float | None,
        key: bytes | None,
    ) -> None:
        if kbps is not None and not kbps > 0:
            raise ConfigError(f"a pace of {kbps} kbit/s: expected more than 0, or None for no limit")
        if not 2 * REPAIR_OVERHEAD_BYTES <= mtu_bytes - REPAIR_OVERHEAD_BYTES <= MAX_MTU_BYTES - REPAIR_OVERHEAD_BYTES:
            raise ConfigError(f"datagrams of {mtu_bytes} bytes: expected {3 * REPAIR_OVERHEAD_BYTES}..{MAX_MTU_BYTES}")
        self.stream_id = secrets.randbits(32) if stream_id is None else stream_id
        self.first_frame = secrets.randbelow(FRAME_NUMBERS) if first_frame is None else first_frame
        self.frames = self.datagrams = self.octets = self.errors = 0
        self._overhead, self._classes, self._mtu_bytes = overhead, classes, mtu_bytes
        self._slices_per_packet, self._kbps = slices_per_packet, kbps
        self.compact = False
        self.on_feedback: Callable[[Feedback], None] | None = None
        self._sealer = None if key is None else Sealer(key, self.stream_id)
        self._opener = None if key is None else Opener(key, feedback=True)
        if self._sealer is not None:
            self._mtu_bytes = mtu_bytes - SEALED_OVERHEAD_BYTES
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
        first_frame: int | None = None,
        overhead: float = 0.0,
        classes: Sequence[tuple[int, float]] = (),
        mtu_bytes: int = DEFAULT_MTU_BYTES,
        slices_per_packet: int = MAX_SLICES,
        kbps: float | None = None,
        key: bytes | None = None,
    ) -> Self:
        """Return a sender; `async with await UdpSender.open(...)` closes it at the end.

        Args:
            host, port: address of the receiver.
            stream_id: number of the stream; None takes a random one.
            first_frame: number of the first frame; None takes a random one. The receiver can then distinguish a sender
                that started again with the same stream id from repeated packets.
            overhead, classes: settings of the repair packets, as in `protect`; 0 and no classes send none.
            mtu_bytes: length of the longest datagram, repair packets included.
            slices_per_packet: greatest number of slices in a packet, as in `packetise`; with 1, the loss of a packet
                loses one slice.
            kbps: pace in 1000 bits a second, of the datagrams without the headers of IP and UDP. None sends as fast as
                possible, which overruns the buffers of most links, and those of a receiver on loopback too.
            key: key of at least 32 bytes that the receiver knows and that seals the datagrams; None does not seal them.

        Raises:
            OSError: the host is not known.
            ConfigError: the pace or the MTU is impossible, or the key is too short.
            MissingDependencyError: there is a key, and cryptography is not installed.
        """
        sender = cls(
            stream_id=stream_id,
            first_frame=first_frame,
            overhead=overhead,
            classes=classes,
            mtu_bytes=mtu_bytes,
            slices_per_packet=slices_per_packet,
            kbps=kbps,
            key=key,
        )
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: sender, remote_addr=(host, port)
        )
        sender._transport = transport
        return sender

    @classmethod
    def offline(cls, *, stream_id: int, first_frame: int, slices_per_packet: int = MAX_SLICES) -> Self:
        """Return a sender without a socket, for a simulation that carries the datagrams of `datagrams_of`."""
        return cls(
            stream_id=stream_id,
            first_frame=first_frame,
            overhead=0.0,
            classes=(),
            mtu_bytes=DEFAULT_MTU_BYTES,
            slices_per_packet=slices_per_packet,
            kbps=None,
            key=None,
        )

    def pause_writing(self) -> None:
        """Pause sending, because the buffer of the operating system is full; called by asyncio."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Resume sending; called by asyncio."""
        self._writable.set()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Take the receiver's feedback on this stream; called by asyncio."""
        del addr
        opened = data if self._opener is None else self._opener.open(data)
        if opened is None:
            return
        try:
            feedback = Feedback.unpack(opened)
        except PacketError as error:
            log.debug("UDP: %s", error)
            return
        if feedback.stream_id != self.stream_id:
            return
        self.compact = self.compact or feedback.compact
        if self.on_feedback is not None:
            self.on_feedback(feedback)

    def error_received(self, exc: Exception) -> None:
        """Count an error of the operating system; called by asyncio."""
        self.errors += 1
        log.debug("UDP: %s", exc)

    async def send(self, stream: bytes) -> int:
        """Send a stream as the next frame; when all datagrams are sent, return the number of their bytes.

        Raises:
            BitstreamError, PacketError: as in `packetise` and `protect`.
            MissingDependencyError: repair packets are asked for and raptorq is not installed.
            ConfigError: the sender is closed.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConfigError("this sender is closed: open another")
        datagrams = self.datagrams_of(stream)
        for data in datagrams:
            await self._pace(len(data))
            self._transport.sendto(data)
            self.datagrams += 1
            self.octets += len(data)
        return sum(map(len, datagrams))

    def datagrams_of(self, stream: bytes) -> list[bytes]:
        """Return the datagrams that carry a stream as the next frame; errors are those of `send`."""
        frame, mtu_bytes = self.first_frame + self.frames, self._mtu_bytes
        protected = self._overhead > 0 or bool(self._classes)
        datagrams = None
        if self.compact and not protected:
            datagrams = compact_packets(stream, stream_id=self.stream_id, frame=frame, mtu_bytes=mtu_bytes)
        if datagrams is None:
            self.compact = False  # until the receiver tells again that it takes them
            datagrams = packetise(
                stream,
                stream_id=self.stream_id,
                frame=frame,
                mtu_bytes=mtu_bytes - (REPAIR_OVERHEAD_BYTES if protected else 0),
                slices_per_packet=self._slices_per_packet,
            )
        if protected:
            datagrams = protect(datagrams, overhead=self._overhead, classes=self._classes, mtu_bytes=mtu_bytes)
        self.frames += 1
        return datagrams if self._sealer is None else [self._sealer.seal(data) for data in datagrams]

    async def _pace(self, n_bytes: int) -> None:
        """Wait until the link is free, then occupy it for the time that `n_bytes` take."""
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
        """Send the datagrams that are still buffered, then close."""
        if self._transport is not None:
            self._transport.close()
            await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
