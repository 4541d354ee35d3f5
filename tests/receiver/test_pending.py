"""The number of frames of one sender without an answer is bounded, whatever the queue of the receiver takes."""

from __future__ import annotations

import asyncio

from gosvae.protocol.frames import Answer, Dropped, Reason
from gosvae.receiver.engine import EngineLimits
from gosvae.sender.client import LinkClient
from receiver.test_engine import Gate
from small_link import patient_limits, run, serving, stream, until

MOST = 4
SENT = 12


def test_frames_beyond_the_limit_are_refused() -> None:
    async def test() -> None:
        gate, engine = Gate(), EngineLimits(max_frames=1000, deadline_ms=0)
        limits = patient_limits(max_pending_frames=MOST)
        async with serving(engine, gate, limits=limits) as service, await LinkClient.open(service.endpoint) as client:
            for number in range(SENT):
                await client.send(number, stream())
            refused = [await anext(client.answers()) for _ in range(SENT - MOST)]
            assert all(isinstance(answer, Dropped) and answer.reason is Reason.QUEUE_FULL for answer in refused)
            assert [answer.number for answer in refused] == list(range(MOST, SENT))
            gate.opened.set()
            await client.finish()
            assert [type(answer) async for answer in client.answers()] == [Answer] * MOST

    run(test)


def test_a_sender_that_must_wait_is_read_no_further() -> None:
    async def test() -> None:
        gate, engine = Gate(), EngineLimits(policy="block", max_frames=1000, deadline_ms=0)
        limits = patient_limits(max_pending_frames=MOST)
        async with serving(engine, gate, limits=limits) as service, await LinkClient.open(service.endpoint) as client:
            for number in range(SENT):
                await client.send(number, stream())
            await until(lambda: service.engine.counters.received >= MOST)
            await asyncio.sleep(0.1)
            assert service.engine.counters.received == MOST
            gate.opened.set()
            await client.finish()
            assert [type(answer) async for answer in client.answers()] == [Answer] * SENT

    run(test)
