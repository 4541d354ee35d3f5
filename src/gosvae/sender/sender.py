"""The complete sender: pictures are coded and sent over gRPC or UDP, and the outcomes of frames are counted."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from gosvae.errors import LinkError
from gosvae.protocol.frames import Answer, Reason
from gosvae.sender.client import ENDED, LinkClient
from gosvae.sender.sources import as_jpeg
from gosvae.sender.transmitter import Transmitter
from gosvae.sender.udp import UdpSender
from gosvae.tensors import ImageArray

DRAIN_S = 10.0
"""Seconds that answers are waited for at the end."""
RECENT = 4096
"""Number of the latest frames whose times are kept."""
OnAnswer = Callable[[Answer], None]
"""Function that is called with every answer."""


@dataclass
class SenderCounters:
    """Numbers of frames of a sender, and times in ms.

    Attributes:
        sent: number of frames that were sent.
        stream_bytes: number of bytes of their streams.
        link_bytes: number of bytes that they took on the link.
        answered: number of frames that were answered.
        dropped: number of frames that the receiver dropped, by `Reason`.
        round_trips_ms: times from sending to the answer, of the latest frames.
        coding_ms: times of compression alone, of the latest pictures.
    """

    sent: int = 0
    stream_bytes: int = 0
    link_bytes: int = 0
    answered: int = 0
    dropped: Counter[Reason] = field(default_factory=Counter)
    round_trips_ms: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    coding_ms: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))


class Target(ABC):
    """Destination of frames."""

    counters: SenderCounters

    @abstractmethod
    async def send(self, number: int, stream: bytes, image_uint8_HW3: ImageArray) -> int:
        """Send a frame and return the number of bytes that it takes on the link.

        Raises:
            LinkError: the stream has ended.
        """

    @abstractmethod
    async def finish(self) -> None:
        """Wait for the answers that are missing; errors are those of `send`."""

    def room(self, link_bytes: float) -> int:
        """Return the number of bytes of stream that fit into `link_bytes` on the link, by the frames so far."""
        counters = self.counters
        share = counters.stream_bytes / counters.link_bytes if counters.link_bytes else 1.0
        return int(link_bytes * share)


class GrpcTarget(Target):
    """Receiver over gRPC; outcomes of frames are read in a task of their own.

    Args:
        client: connection to the receiver.
        originals: whether to send every picture along, as a JPEG, for the receiver's page.
        on_answer: function that is called with every answer.
    """

    def __init__(self, client: LinkClient, *, originals: bool = False, on_answer: OnAnswer | None = None) -> None:
        self.counters = SenderCounters()
        self._client, self._originals, self._on_answer = client, originals, on_answer
        self._sent_s: dict[int, float] = {}
        self._room = asyncio.Event()
        self._reader = asyncio.create_task(self._read())
        self._reader.add_done_callback(self._read_all)

    async def _read(self) -> None:
        counters = self.counters
        async for outcome in self._client.answers():
            sent_s = self._sent_s.pop(outcome.number, None)
            self._room.set()
            if isinstance(outcome, Answer):
                counters.answered += 1
                if sent_s is not None:
                    counters.round_trips_ms.append(1000.0 * (time.monotonic() - sent_s))
                if self._on_answer is not None:
                    self._on_answer(outcome)
            else:
                counters.dropped[outcome.reason] += 1

    def _read_all(self, reader: asyncio.Task[None]) -> None:
        """Wake up `send`, because no more answers come; mark the error as read, which `send` and `finish` raise."""
        if not reader.cancelled():
            reader.exception()
        self._room.set()

    def _check(self) -> None:
        """Raise `LinkError` if no more answers can come."""
        if self._reader.done():
            self._reader.result()
            raise LinkError(ENDED.format(endpoint=self._client.endpoint))

    async def send(self, number: int, stream: bytes, image_uint8_HW3: ImageArray) -> int:
        """Send a frame; wait while the receiver has as many frames without an answer as it allows."""
        while len(self._sent_s) >= self._client.welcome.max_pending_frames:
            self._check()
            self._room.clear()
            await self._room.wait()
        self._check()
        self._sent_s[number] = time.monotonic()
        trips_ms = self.counters.round_trips_ms
        return await self._client.send(
            number,
            stream,
            round_trip_ms=trips_ms[-1] if trips_ms else 0.0,
            original=as_jpeg(image_uint8_HW3) if self._originals else b"",
        )

    async def finish(self) -> None:
        await self._client.finish()
        async with asyncio.timeout(DRAIN_S):
            await self._reader

    @property
    def unanswered(self) -> int:
        """Number of frames without an outcome."""
        return len(self._sent_s)


class UdpTarget(Target):
    """Receiver over UDP, from which nothing comes back."""

    def __init__(self, sender: UdpSender) -> None:
        self.counters = SenderCounters()
        self.sender = sender

    async def send(self, number: int, stream: bytes, image_uint8_HW3: ImageArray) -> int:
        del number, image_uint8_HW3
        return await self.sender.send(stream)

    async def finish(self) -> None:
        await asyncio.sleep(0)


class _Feed:
    """Reader of pictures from an iterator, in a daemon thread because it may hang in a pipe or a camera."""

    def __init__(self, pictures: Iterator[ImageArray]) -> None:
        self._pictures = pictures
        self._loop = asyncio.get_running_loop()
        self._wanted: queue.SimpleQueue[asyncio.Future[ImageArray | None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="gosvae-source", daemon=True).start()

    async def next(self) -> ImageArray | None:
        """Return the next picture, or None at the end; raises what the iterator raises."""
        future: asyncio.Future[ImageArray | None] = self._loop.create_future()
        self._wanted.put(future)
        return await future

    def close(self) -> None:
        """Read no more pictures; the thread ends when the source returns."""
        self._wanted.put(None)

    def _read(self) -> None:
        while (future := self._wanted.get()) is not None:
            try:
                picture = next(self._pictures, None)
            except Exception as error:
                self._tell(future, None, error)
            else:
                self._tell(future, picture, None)

    def _tell(
        self, future: asyncio.Future[ImageArray | None], picture: ImageArray | None, error: Exception | None
    ) -> None:
        def tell() -> None:
            if not future.done():
                if error is None:
                    future.set_result(picture)
                else:
                    future.set_exception(error)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(tell)


async def send_pictures(
    pictures: Iterator[ImageArray],
    transmitter: Transmitter,
    target: Target,
    *,
    fps: float | None,
    stop: asyncio.Event,
) -> None:
    """Code and send pictures until there are no more, or until `stop` is set; then wait for the answers.

    Args:
        pictures: pictures, uint8 (H, W, 3) each, which are read when their turn comes.
        transmitter: codec with its rate.
        target: destination of the frames.
        fps: greatest number of pictures a second; None sends them as fast as they come.
        stop: event that ends the sending.

    Raises:
        ImageError, LinkError: as in the source and the target.
        TimeoutError: answers are missing after `DRAIN_S` seconds at the end.
    """
    feed, loop = _Feed(pictures), asyncio.get_running_loop()
    coder = ThreadPoolExecutor(1, thread_name_prefix="gosvae-coder")
    stopping = asyncio.create_task(stop.wait())
    number, due_s = 0, loop.time()
    try:
        while not stop.is_set():
            waiting = asyncio.ensure_future(feed.next())
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() or (picture := waiting.result()) is None:
                waiting.cancel()
                break
            if fps is not None:
                await asyncio.wait((stopping,), timeout=max(0.0, due_s - loop.time()))
                due_s = max(due_s, loop.time() - 1 / fps) + 1 / fps  # what is late is caught up by one at most
            began_s = time.monotonic()
            stream = await loop.run_in_executor(coder, transmitter.code, picture, began_s, target.room)
            target.counters.coding_ms.append(1000.0 * (time.monotonic() - began_s))
            if stream is not None:
                await _send(target, transmitter, number, stream, picture)
                number += 1
        await target.finish()
    finally:
        feed.close()
        stopping.cancel()
        coder.shutdown(wait=False, cancel_futures=True)


async def _send(target: Target, transmitter: Transmitter, number: int, stream: bytes, picture: ImageArray) -> None:
    link_bytes = await target.send(number, stream, picture)
    transmitter.spend(link_bytes)
    counters = target.counters
    counters.sent += 1
    counters.stream_bytes += len(stream)
    counters.link_bytes += link_bytes


def percentile(values: deque[float] | list[float], percent: float) -> float:
    """Return a percentile of the values; nan if there are none."""
    return float(np.percentile(list(values), percent)) if values else float("nan")
