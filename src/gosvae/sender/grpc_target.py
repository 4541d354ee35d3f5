"""Destination of frames over gRPC, with frames that are under way, their outcomes, and reconnection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gosvae.protocol.frames import Answer
from gosvae.sender.client import ENDED, LinkClient, UnreachableError
from gosvae.sender.reconnect import Reconnection
from gosvae.sender.sources import as_jpeg
from gosvae.sender.target import SenderCounters, Target
from gosvae.tensors import ImageArray

DRAIN_S = 120.0
"""Seconds without an outcome after which `finish` stops waiting for the frames that have none."""
INTERRUPTED_S = 10.0
"""Seconds of the same limit for a sender that was interrupted."""
OnAnswer = Callable[[Answer], None]
"""Function that is called with every answer."""


@dataclass
class _Flying:
    """A frame without an outcome; times are on the clock of `time.monotonic`."""

    stream: bytes
    original: bytes
    coded_s: float
    sent_s: float
    image_uint8_HW3: ImageArray | None


class GrpcTarget(Target):
    """Receiver over gRPC; a task of its own reads the outcomes of frames.

    Args:
        client: connection to the receiver. `close` closes it, or the connection that replaced it.
        originals: whether to send every picture with its frame, as a JPEG, for the receiver's page.
        on_answer: function that is called with every answer.
        reconnection: maker of a new connection when this one breaks; without one, `send` and `finish` then fail.
        patient: whether `finish` waits for the answers without a limit, until `stop` of the reconnection is set.
    """

    def __init__(
        self,
        client: LinkClient,
        *,
        originals: bool = False,
        on_answer: OnAnswer | None = None,
        reconnection: Reconnection | None = None,
        patient: bool = False,
    ) -> None:
        self.counters = SenderCounters()
        self._client, self._originals, self._on_answer = client, originals, on_answer
        self._reconnection, self._patient = reconnection, patient
        self._flying: dict[int, _Flying] = {}
        self._next: dict[int, _Flying] = {}
        """Frame that waits until there is room for it."""
        self._unsent: deque[int] = deque()
        self._room = asyncio.Event()
        self._reader = self._start_reader()

    @property
    def unanswered(self) -> int:
        """Number of frames without an outcome."""
        return len(self._flying)

    async def send(self, number: int, stream: bytes, image_uint8_HW3: ImageArray) -> int:
        """Send a frame and return the number of bytes on the link.

        This waits while the greatest number of frames without an answer is reached, or while the receiver is away.
        """
        link_bytes, now_s = 0, time.monotonic()
        picture = None if self.recode is None else image_uint8_HW3
        self._next = {number: _Flying(stream, b"", now_s, now_s, picture)}
        while len(self._flying) >= self._client.welcome.max_pending_frames:
            self._room.clear()
            if self._reader.done():
                link_bytes += await self._send_all()  # over a new connection
            else:
                await self._room.wait()
        original = as_jpeg(image_uint8_HW3) if self._originals else b""
        if len(self._next[number].stream) + len(original) > self._client.welcome.max_frame_bytes and original:
            self.counters.originals_left_out += 1
            original = b""
        self._next[number].original, self._next[number].coded_s = original, time.monotonic()
        self._flying |= self._next
        self._next = {}
        self._unsent.append(number)
        return link_bytes + await self._send_all()

    async def finish(self) -> None:
        """Wait for the missing answers; if the connection breaks meanwhile, it is replaced."""
        while self._flying:
            await self._send_all()
            try:
                await self._client.finish()
                await self._drain()
                return
            except UnreachableError:
                await asyncio.wait((self._reader,))
                if self._flying and self._reconnection is None:
                    raise
        if not self._reader.done():
            with contextlib.suppress(UnreachableError):  # everything has its outcome
                await self._client.finish()
                await self._drain()

    async def close(self) -> None:
        """Close the connection; frames and answers that are under way are lost."""
        await self._client.close()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _drain(self) -> None:
        """Wait for the end of the answers.

        Raises:
            TimeoutError: for `DRAIN_S` seconds, or `INTERRUPTED_S` after an interrupt, no frame got its outcome; with
                `patient` only after an interrupt.
        """
        stop = asyncio.Event() if self._reconnection is None else self._reconnection.stop
        stopping = asyncio.create_task(stop.wait())
        try:
            while not self._reader.done():
                missing, interrupted = len(self._flying), stop.is_set()
                waits_for = {self._reader} if interrupted else {self._reader, stopping}
                done, _ = await asyncio.wait(
                    waits_for,
                    timeout=min(DRAIN_S, INTERRUPTED_S) if interrupted else DRAIN_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if done or len(self._flying) < missing:
                    continue
                if not self._patient or self._reconnection is None or interrupted:
                    raise TimeoutError
                self._reconnection.say(f"still waiting for {missing} answers; Ctrl-C ends the waiting")
        finally:
            stopping.cancel()
        self._reader.result()

    def _start_reader(self) -> asyncio.Task[None]:
        reader = asyncio.create_task(self._read(self._client))
        reader.add_done_callback(self._read_all)
        return reader

    async def _read(self, client: LinkClient) -> None:
        counters = self.counters
        async for outcome in client.answers():
            flying = self._flying.pop(outcome.number, None)
            self._room.set()
            if self.on_outcome is not None:
                self.on_outcome(outcome.number, None if isinstance(outcome, Answer) else outcome.reason)
            if isinstance(outcome, Answer):
                counters.answered += 1
                if flying is not None:
                    counters.round_trips_ms.append(1000.0 * (time.monotonic() - flying.sent_s))
                if self._on_answer is not None:
                    self._on_answer(outcome)
            else:
                counters.dropped[outcome.reason] += 1

    def _read_all(self, reader: asyncio.Task[None]) -> None:
        """Wake up `send`, because no more answers come; mark the error as read, which `send` and `finish` raise."""
        if not reader.cancelled():
            reader.exception()
        self._room.set()

    async def _send_all(self) -> int:
        """Send the frames that this connection has not taken yet, and return the number of bytes on the link."""
        link_bytes = 0
        while True:
            if self._reader.done():
                await self._recover()
            trips_ms = self.counters.round_trips_ms
            try:
                while self._unsent:
                    number = self._unsent[0]
                    flying = self._flying[number]
                    flying.sent_s = time.monotonic()
                    link_bytes += await self._client.send(
                        number,
                        flying.stream,
                        round_trip_ms=trips_ms[-1] if trips_ms else 0.0,
                        original=flying.original,
                    )
                    self._unsent.popleft()
                return link_bytes
            except UnreachableError:
                await asyncio.wait((self._reader,))  # answers that arrived before the end still count
                if self._reconnection is None:
                    raise

    async def _recover(self) -> None:
        """Replace a connection that ended; the frames without an outcome are sent again, or lost if they are too old.

        Raises:
            LinkError: the connection ended for a reason that a new one would not mend, or there is no way to one.
        """
        try:
            self._reader.result()
            raise UnreachableError(ENDED.format(endpoint=self._client.endpoint))
        except UnreachableError as error:
            reconnection = self._reconnection
            if reconnection is None or reconnection.stop.is_set():
                raise
            reconnection.say(f"{error}; {len(self._flying)} frames have no answer yet")
        await self._client.close()
        self._client = client = await reconnection.connect()
        now_s, counters = time.monotonic(), self.counters
        for number, flying in list(self._flying.items()):
            if not reconnection.is_fresh(now_s - flying.coded_s, client.welcome.deadline_ms):
                del self._flying[number]
                counters.lost += 1
        self._unsent = deque(self._flying)
        await self._recode()
        counters.reconnections += 1
        counters.sent_again += len(self._unsent)
        self._reader = self._start_reader()
        again = f"{len(self._unsent)} frames are sent again, {counters.lost} lost so far"
        reconnection.say(f"the link to {client.endpoint} is back: {again}")

    async def _recode(self) -> None:
        """Code the frames without an outcome again if they depend on others, which a restarted receiver lacks."""
        frames = self._flying | self._next
        pictures = [(n, frame.image_uint8_HW3) for n, frame in frames.items() if frame.image_uint8_HW3 is not None]
        if self.recode is None or len(pictures) < len(frames):
            return
        streams = await asyncio.to_thread(self.recode, pictures)
        if streams is not None:
            for frame, stream in zip(frames.values(), streams, strict=True):
                frame.stream = stream
