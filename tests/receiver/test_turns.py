"""Whose turn it is: by the time that a sender's frames took, with large frames apart, and work that can be stopped."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from gosvae.codecs.classical import load_classical
from gosvae.interruption import InterruptionError, check_interruption, interruptible
from gosvae.protocol.frames import Dropped, Frame, Perceived, Reason, StageTimes
from gosvae.receiver.engine import LOWER_PRIORITY, Engine, EngineLimits
from gosvae.receiver.perception import LEAST_LARGE_PIXELS, LEAST_MAX_PIXELS, Perception
from gosvae.receiver.turns import MOST_KNOWN, Ticket, Turns
from receiver.test_engine import reason, reasons
from small_link import PATIENCE_S, codec, perception, run, stream, until
from tiny import expert

LARGE, SMALL = LEAST_LARGE_PIXELS + 1, 100


async def ticket(sender: str, pixels: int = SMALL, *, large: bool = False) -> Ticket:
    frame = Frame(sender, 0, b"x")
    return Ticket(frame, asyncio.get_running_loop().create_future(), pixels, large)


class Scripted(Perception):
    """Does what the stream of a frame says: `large` waits for the gate, `endless` computes until it is stopped."""

    def __init__(self) -> None:
        super().__init__(codec(), expert())
        self.opened = threading.Event()
        self.began: list[bytes] = []
        self.nice: dict[bytes, int] = {}

    def pixels(self, stream: bytes) -> int:
        return SMALL if stream == b"small" else LARGE

    def __call__(
        self, frames: Sequence[tuple[bytes, bool]], senders: Sequence[str] | None = None
    ) -> list[Perceived | Dropped]:
        del senders
        for data, _ in frames:
            self.began.append(data)
            if sys.platform == "linux":
                self.nice[data] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            if data == b"large":
                assert self.opened.wait(PATIENCE_S / 2)
            while data == b"endless":
                torch.zeros(1).add_(1)
        image, classes = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)
        return [Perceived(image, classes, None, StageTimes()) for _ in frames]


def test_a_sender_has_the_turn_as_often_as_its_frames_are_short() -> None:
    """One sender's frames of the same size take ten times as long, as measured afterwards."""

    async def test() -> None:
        turns, taken = Turns(), Counter[str]()
        for sender in ("heavy", "light"):
            for _ in range(200):
                turns.add(await ticket(sender))
        for _ in range(110):
            now = turns.take(large=False)
            taken[now.frame.sender] += 1
            turns.charge([now], 1.0 if now.frame.sender == "heavy" else 0.1)
        assert 8 <= taken["heavy"] <= 14
        assert taken["light"] == 110 - taken["heavy"]

    run(test)


def test_pixels_count_before_any_time_is_measured() -> None:
    async def test() -> None:
        turns, taken = Turns(), Counter[str]()
        for _ in range(100):
            turns.add(await ticket("large", 10 * SMALL))
            turns.add(await ticket("small", SMALL))
        for _ in range(55):
            taken[turns.take(large=False).frame.sender] += 1
        assert taken == {"small": 50, "large": 5}

    run(test)


def test_nobody_saves_time_up_and_debts_stay() -> None:
    async def test() -> None:
        turns = Turns()
        for _ in range(10):
            turns.add(await ticket("busy"))
            turns.charge([turns.take(large=False)], 1.0)
        turns.add(await ticket("busy"))
        order = []
        for _ in range(4):
            turns.add(await ticket("new"))
        for _ in range(3):
            order.append(turns.take(large=False))
            turns.charge(order[-1:], 1.0)
        # The newcomer starts where the busy one is; one that sends a frame at a time does not lose its debt.
        assert [t.frame.sender for t in order].count("busy") == 1
        for n in range(MOST_KNOWN + 50):
            turns.add(await ticket(f"s{n}"))
            turns.take(large=False)
        assert len(turns._used_s) <= MOST_KNOWN + 2

    run(test)


def test_a_large_frame_holds_up_no_usual_one() -> None:
    async def test() -> None:
        looks = Scripted()
        async with Engine(looks, EngineLimits(deadline_ms=0)) as engine:
            large = await engine.submit(Frame("attacker", 0, b"large"))
            await until(lambda: looks.began == [b"large"])
            more = [await engine.submit(Frame("attacker", n, b"large")) for n in range(5)]
            assert reason(await (await engine.submit(Frame("good", 0, b"small")))) is None
            assert not large.done()
            looks.opened.set()
            assert reasons(await asyncio.gather(large, *more)) == [None] * 6
            assert engine.counters.unaccounted == 0
        if sys.platform == "linux":
            assert looks.nice[b"large"] == min(19, looks.nice[b"small"] + LOWER_PRIORITY)

    run(test)


async def _close(engine: Engine) -> None:
    await engine.close(grace_s=0.0)


async def _leave(engine: Engine) -> None:
    del engine


@pytest.mark.parametrize(("end", "why"), [(_close, Reason.SHUTDOWN), (_leave, Reason.GONE)])
def test_work_that_nobody_wants_is_stopped(end: Callable[[Engine], asyncio.Future[None]], why: Reason) -> None:
    async def test() -> None:
        looks = Scripted()
        async with Engine(looks, EngineLimits(deadline_ms=0)) as engine:
            outcome = await engine.submit(Frame("s", 0, b"endless"))
            await until(lambda: looks.began == [b"endless"])
            if why == Reason.GONE:
                outcome.cancel()
            await end(engine)
            await until(lambda: engine.counters.dropped[why] == 1)
            assert engine.counters.unaccounted == engine.counters.working == 0

    run(test)


def test_work_far_beyond_its_deadline_is_given_up_for_others() -> None:
    async def test() -> None:
        looks, later_s = Scripted(), 0.0
        looks.opened.set()
        async with Engine(looks, EngineLimits(deadline_ms=0), lambda: time.monotonic() + later_s) as engine:
            first = await engine.submit(Frame("a", 0, b"endless", deadline_ms=1000 * PATIENCE_S))
            await until(lambda: looks.began == [b"endless"])
            later_s = 11 * PATIENCE_S
            done, _ = await asyncio.wait((first,), timeout=0.05)
            assert not done, "nobody else waits"
            second = await engine.submit(Frame("b", 0, b"large"))
            assert reasons(await asyncio.gather(first, second)) == [Reason.STALE, None]

    run(test)


def test_frames_that_announce_too_many_pixels_never_wait() -> None:
    async def test() -> None:
        looks = Scripted()
        looks.max_pixels = LARGE - 1
        async with Engine(looks, EngineLimits(deadline_ms=0)) as engine:
            assert reason(await (await engine.submit(Frame("s", 0, b"large")))) == Reason.TOO_LARGE
            assert looks.began == []

    run(test)


def test_limits_on_pixels_follow_the_expert() -> None:
    small = perception()
    assert (small.max_pixels, small.large_pixels) == (LEAST_MAX_PIXELS, LEAST_LARGE_PIXELS)
    judge = expert()
    object.__setattr__(judge.info, "input_height", 1024)
    object.__setattr__(judge.info, "input_width", 2048)
    assert Perception(codec(), judge).max_pixels == 4 * 2**21
    assert Perception(codec(), judge).large_pixels == 2 * 2**21
    assert small.pixels(stream()) == 64 * 96
    assert small.pixels(b"garbage") == small.pixels(b"") == 0
    jpeg = load_classical("jpeg")
    picture = jpeg.compress(np.zeros((40, 50, 3), np.uint8))
    assert Perception(jpeg, expert()).pixels(picture) == 2000
    assert small.pixels(picture) == 0, "a receiver of streams looks into no file"


def test_only_the_thread_that_is_told_stops() -> None:
    stop: list[str] = []
    with interruptible(lambda: stop[0] if stop else None):
        torch.zeros(2)
        check_interruption()
        stop.append("enough")
        with pytest.raises(InterruptionError, match="enough"):
            torch.zeros(2)
        with pytest.raises(InterruptionError, match="enough"):
            torch.nn.functional.relu(torch.tensor(1.0))
        with pytest.raises(InterruptionError, match="enough"):
            check_interruption()
        other = threading.Thread(target=lambda: stop.append(str(torch.zeros(1).item())))
        other.start()
        other.join()
    assert stop == ["enough", "0.0"]
    with interruptible(lambda: "enough", operations=False):
        torch.zeros(2)
        with pytest.raises(InterruptionError, match="enough"):
            check_interruption()
    torch.zeros(2)
    check_interruption()
