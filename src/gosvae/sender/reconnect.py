"""Attempts to reach a receiver that is not running yet or restarts, with growing pauses between them."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from gosvae.errors import ConfigError
from gosvae.sender.client import LinkClient, UnreachableError


@dataclass(frozen=True)
class BackOff:
    """Pauses between attempts, whose longest duration doubles each time.

    Pauses are random, so that the senders of a receiver that restarts do not reconnect all at once.

    Attributes:
        first_s: longest duration of the first pause in seconds.
        most_s: longest duration of any pause in seconds.
    """

    first_s: float = 0.5
    most_s: float = 15.0

    def pauses_s(self, random_0_1: Callable[[], float]) -> Iterator[float]:
        """Yield durations of pauses in seconds, without end; each is half to all of the longest duration of its pause.

        Args:
            random_0_1: function that returns random numbers in [0, 1).
        """
        longest_s = self.first_s
        while True:
            yield longest_s * (0.5 + 0.5 * random_0_1())
            longest_s = min(2 * longest_s, self.most_s)


@dataclass
class Reconnection:
    """Maker of connections to a receiver, which tries again while a further attempt may succeed.

    Attributes:
        open: function that makes one attempt, such as `LinkClient.open` with its arguments.
        give_up_after_s: seconds without a receiver after which the error of the latest attempt is raised; 0 makes only
            one attempt, infinity never gives up.
        fresh_s: age in seconds up to which a frame without an answer is sent again over a new connection; None means
            the receiver's deadline for frames, and any age if it has none.
        say: function that is called with a line for people whenever something changes.
        stop: event that ends the waiting.
        back_off: pauses between attempts.
        clock: function that returns a time in seconds, which never goes back.
        sleep: function that waits for a number of seconds.
        random_0_1: function that returns random numbers in [0, 1).

    Raises:
        ConfigError: `give_up_after_s` is below 0 or not a number.
    """

    open: Callable[[], Awaitable[LinkClient]]
    give_up_after_s: float = 60.0
    fresh_s: float | None = None
    say: Callable[[str], None] = lambda _: None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    back_off: BackOff = BackOff()
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    random_0_1: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not self.give_up_after_s >= 0:
            raise ConfigError(f"give up after {self.give_up_after_s} s: expected 0 or more", argument="give_up_after")

    async def connect(self) -> LinkClient:
        """Return a new connection, after as many attempts as it takes.

        Raises:
            UnreachableError: there is no receiver, and `give_up_after_s` has passed or `stop` is set.
            LinkError, ConfigError: as in `LinkClient.open`; a further attempt would fail too.
        """
        began_s = self.clock()
        for attempts, pause_s in enumerate(self.back_off.pauses_s(self.random_0_1), 1):
            try:
                client = await self.open()
            except UnreachableError as error:
                left_s = began_s + self.give_up_after_s - self.clock()
                if left_s <= 0 or self.stop.is_set():
                    raise
                wait_s = min(pause_s, left_s)
                why = str(error) if attempts == 1 else f"still no receiver after {attempts} attempts"
                until = "" if math.isinf(left_s) else f", giving up in {left_s:.0f} s"
                self.say(f"{why}; next attempt in {wait_s:.1f} s{until}")
                if not await self._pause(wait_s):
                    raise
            else:
                if attempts > 1:
                    self.say(f"connected to {client.endpoint} after {attempts} attempts")
                return client
        raise AssertionError("the pauses have no end")

    def is_fresh(self, age_s: float, deadline_ms: float) -> bool:
        """Return whether a frame without an answer is sent again.

        Args:
            age_s: time since the frame was coded.
            deadline_ms: the receiver's deadline for frames; 0 means none.
        """
        if self.fresh_s is not None:
            return age_s <= self.fresh_s
        return deadline_ms <= 0 or 1000 * age_s <= deadline_ms

    async def _pause(self, seconds: float) -> bool:
        """Wait, and return True; return False at once when `stop` is set."""
        tasks = asyncio.ensure_future(self.sleep(seconds)), asyncio.ensure_future(self.stop.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        return not self.stop.is_set()
