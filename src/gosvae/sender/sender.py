"""Complete sender: pictures are coded and sent over gRPC or UDP, and the outcomes of frames are counted."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from gosvae.protocol.feedback import FRAME_NUMBERS, MOST_TOLD, Feedback
from gosvae.protocol.frames import Reason
from gosvae.sender.target import SenderCounters, Target
from gosvae.sender.transmitter import Transmitter
from gosvae.sender.udp import UdpSender
from gosvae.tensors import ImageArray

ROOM_PAUSE_S = 0.1
"""Seconds between two attempts to send a picture for which the rate has no room."""


class UdpTarget(Target):
    """Receiver over UDP, which sends nothing back except feedback on the frames of a video.

    Args:
        sender: sender of the datagrams.
    """

    def __init__(self, sender: UdpSender) -> None:
        self.counters = SenderCounters()
        self.sender = sender
        self._told = -1
        sender.on_feedback = self._hear

    def _hear(self, feedback: Feedback) -> None:
        """Tell the outcomes of the latest frames."""
        latest = self.sender.frames - 1
        newest = latest - (self.sender.first_frame + latest - feedback.newest) % FRAME_NUMBERS
        if newest < 0 or self.on_outcome is None:
            return
        for behind in range(min(MOST_TOLD, newest + 1) - 1, -1, -1):
            decoded = bool(feedback.decoded >> behind & 1)
            if decoded or newest - behind > self._told:
                self.on_outcome(newest - behind, None if decoded else Reason.INCOMPLETE)
        self._told = max(self._told, newest)

    async def send(self, number: int, stream: bytes, image_uint8_HW3: ImageArray) -> int:
        del number, image_uint8_HW3
        return await self.sender.send(stream)

    async def finish(self) -> None:
        await asyncio.sleep(0)


class _Feed:
    """Reader of pictures from an iterator, in a daemon thread because a pipe or a camera may block."""

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
    patient: bool = False,
) -> None:
    """Code and send pictures until there are no more, or until `stop` is set; then wait for the answers.

    Args:
        pictures: iterator over pictures, uint8 (H, W, 3); each is read when its turn comes.
        transmitter: codec with its rate.
        target: destination of the frames.
        fps: greatest number of pictures a second; None sends them as fast as they are read.
        stop: event that ends the sending.
        patient: whether a picture for which the rate has no room waits; otherwise it is skipped.

    Raises:
        ImageError: a picture cannot be read or coded.
        LinkError: the target cannot send, or the receiver ended the connection.
        TimeoutError: answers are missing at the end, as in the target's `finish`.
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
            code = partial(transmitter.code, picture, room=target.room, patient=patient)
            while True:
                began_s = time.monotonic()
                stream = await loop.run_in_executor(coder, code, began_s)
                target.counters.coding_ms.append(1000.0 * (time.monotonic() - began_s))
                if stream is not None or not (patient and transmitter.waits) or stop.is_set():
                    break
                await asyncio.wait((stopping,), timeout=ROOM_PAUSE_S)
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
