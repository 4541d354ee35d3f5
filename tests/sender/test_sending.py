"""Pictures for which the rate has no room: those of files wait, those of a camera are skipped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import repeat
from unittest.mock import patch

import pytest

from gosvae.sender import sender
from gosvae.sender.sender import send_pictures
from gosvae.sender.target import SenderCounters, Target
from gosvae.sender.transmitter import Transmitter
from gosvae.tensors import ImageArray
from small_link import codec, run
from tiny import streets

PICTURE = streets()[0].image_uint8_HW3


class Kept(Target):
    """Destination that keeps what it gets."""

    def __init__(self) -> None:
        self.counters = SenderCounters()
        self.numbers: list[int] = []

    async def send(self, number: int, stream: bytes, image_uint8_HW3: ImageArray) -> int:
        assert stream == codec().compress(image_uint8_HW3)
        self.numbers.append(number)
        return len(stream)

    async def finish(self) -> None:
        await asyncio.sleep(0)


class Crowded(Transmitter):
    """Transmitter whose rate has no room the first times that it is asked."""

    def __init__(self, refusals: int) -> None:
        super().__init__(codec())
        self.refusals = refusals
        self.refused: Callable[[], None] = lambda: None

    def _code(self, image_uint8_HW3: ImageArray, now_s: float, room: Callable[[float], int]) -> bytes | None:
        if self.refusals:
            self.refusals -= 1
            self.refused()
            return None
        return super()._code(image_uint8_HW3, now_s, room)


@pytest.mark.parametrize(("patient", "sent", "skipped"), [(True, 5, 0), (False, 2, 3)])
def test_pictures_without_room_wait_or_are_skipped(patient: bool, sent: int, skipped: int) -> None:
    async def test() -> None:
        target, transmitter = Kept(), Crowded(3)
        with patch.object(sender, "ROOM_PAUSE_S", 0.0):
            await send_pictures(
                repeat(PICTURE, 5), transmitter, target, fps=None, stop=asyncio.Event(), patient=patient
            )
        assert target.numbers == list(range(sent))
        assert (target.counters.sent, transmitter.counters.coded) == (sent, sent)
        assert transmitter.counters.skipped == skipped

    run(test)


def test_an_interrupt_ends_the_waiting_for_room() -> None:
    async def test() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        target, transmitter = Kept(), Crowded(10**9)
        transmitter.refused = lambda: loop.call_soon_threadsafe(stop.set)
        await send_pictures(repeat(PICTURE), transmitter, target, fps=None, stop=stop, patient=True)
        assert target.numbers == []

    run(test)
