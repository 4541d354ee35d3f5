"""A sender whose receiver is not there yet, goes away, or comes back: it waits, goes on, and loses nothing unasked."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from unittest.mock import patch

import pytest

from gosvae import bitstream
from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.sequence.format import is_session
from gosvae.errors import ConfigError, LinkError
from gosvae.protocol.frames import Answer, Frame, Outcome, Perceived
from gosvae.protocol.security import Endpoint
from gosvae.receiver.engine import EngineLimits
from gosvae.receiver.perception import Perception
from gosvae.receiver.receiver import Receiver, ReceiverConfig
from gosvae.sender import grpc_target
from gosvae.sender.client import LinkClient, UnreachableError
from gosvae.sender.grpc_target import GrpcTarget
from gosvae.sender.reconnect import BackOff, Reconnection
from gosvae.sender.sender import send_pictures
from gosvae.sender.sequence_transmitter import SequenceTransmitter
from gosvae.sender.transmitter import Transmitter
from gosvae.tensors import ImageArray
from receiver.test_engine import Gate
from small_link import LOOPBACK, PATIENCE_S, codec, patient_limits, perception, run, stream, until
from tiny import expert, sequence_codec, streets

CONFIG = ReceiverConfig(
    grpc=LOOPBACK, engine=EngineLimits(deadline_ms=0, policy="block"), service=patient_limits(max_pending_frames=6)
)
FRAMES, FIRST = 20, 5


def pictures(count: int) -> Iterator[ImageArray]:
    return (streets()[n % 4].image_uint8_HW3 for n in range(count))


async def kill(receiver: Receiver) -> None:
    """End every stream of a receiver at once, as the end of its process does."""
    assert receiver.service is not None
    await receiver.service._server.stop(None)


class Attempts:
    """Attempts that fail with given errors before one succeeds; clock and pauses are simulated."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.now_s = list(errors), 100.0
        self.pauses_s: list[float] = []
        self.said: list[str] = []
        self.client = object()

    async def open(self) -> LinkClient:
        if self.errors:
            raise self.errors.pop(0)
        return self.client  # type: ignore[return-value]

    async def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds

    def reconnection(self, **more: object) -> Reconnection:
        return Reconnection(
            self.open,
            say=self.said.append,
            clock=lambda: self.now_s,
            sleep=self.sleep,
            random_0_1=lambda: 1.0,
            **more,  # type: ignore[arg-type]
        )


class Client:
    endpoint = Endpoint("receiver.example", 7777)


def away(count: int) -> list[Exception]:
    return [UnreachableError("no receiver") for _ in range(count)]


@pytest.mark.parametrize(("random", "share"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_pauses_grow_up_to_a_limit_and_are_random(random: float, share: float) -> None:
    pauses = BackOff(first_s=1, most_s=10).pauses_s(lambda: random)
    assert list(islice(pauses, 6)) == [share * longest for longest in (1, 2, 4, 8, 10, 10)]


def test_a_receiver_that_comes_later_is_waited_for_and_told() -> None:
    async def test() -> None:
        attempts = Attempts(*away(3))
        attempts.client = Client()
        assert await attempts.reconnection().connect() is attempts.client
        assert attempts.pauses_s == [0.5, 1.0, 2.0]
        assert attempts.said == [
            "no receiver; next attempt in 0.5 s, giving up in 60 s",
            "still no receiver after 2 attempts; next attempt in 1.0 s, giving up in 60 s",
            "still no receiver after 3 attempts; next attempt in 2.0 s, giving up in 58 s",
            "connected to receiver.example:7777 after 4 attempts",
        ]

    run(test)


def test_giving_up() -> None:
    async def test() -> None:
        attempts = Attempts(*away(100))
        with pytest.raises(UnreachableError, match="no receiver"):
            await attempts.reconnection(give_up_after_s=5.0).connect()
        assert attempts.pauses_s == [0.5, 1.0, 2.0, 1.5]  # the latest attempt is at the end of the time
        attempts = Attempts(*away(1))
        with pytest.raises(UnreachableError, match="no receiver"):
            await attempts.reconnection(give_up_after_s=0.0).connect()
        assert attempts.said == attempts.pauses_s == []
        attempts = Attempts(*away(200))
        attempts.client = Client()
        await attempts.reconnection(give_up_after_s=math.inf).connect()
        assert len(attempts.pauses_s) == 200
        assert "giving up" not in attempts.said[0]

    run(test)
    for bad in (-1.0, math.nan):
        with pytest.raises(ConfigError, match="expected 0 or more"):
            Attempts().reconnection(give_up_after_s=bad)


def test_an_error_that_stays_is_not_waited_for() -> None:
    async def test() -> None:
        for error in (LinkError("wrong token"), ConfigError("no such file")):
            attempts = Attempts(error)
            with pytest.raises(type(error), match=str(error)):
                await attempts.reconnection().connect()
            assert attempts.pauses_s == []

    run(test)


def test_an_interrupt_ends_the_waiting() -> None:
    async def test() -> None:
        attempts, stop = Attempts(*away(100)), asyncio.Event()
        reconnection = attempts.reconnection(stop=stop)
        reconnection.sleep = lambda _: asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(reconnection.connect())
        await until(lambda: bool(attempts.said))
        stop.set()
        with pytest.raises(UnreachableError):
            await waiting
        assert len(attempts.errors) == 99

    run(test)


def test_freshness_of_frames() -> None:
    reconnection = Attempts().reconnection()
    assert reconnection.is_fresh(age_s=1e6, deadline_ms=0)
    assert reconnection.is_fresh(age_s=0.9, deadline_ms=1000)
    assert not reconnection.is_fresh(age_s=1.1, deadline_ms=1000)
    own = Attempts().reconnection(fresh_s=5.0)
    assert own.is_fresh(age_s=5, deadline_ms=1)
    assert not own.is_fresh(age_s=5.1, deadline_ms=0)


class Link:
    """Four senders, and the receiver that they come back to when `up` is set."""

    def __init__(self, video: SequenceCodec | None = None) -> None:
        self.video = video
        self.up = asyncio.Event()
        self.more = threading.Event()
        self.answered: dict[str, list[int]] = defaultdict(list)
        self.said: list[str] = []
        self.targets: dict[str, GrpcTarget] = {}

    async def send(self, name: str, endpoint: Endpoint, count: int = FRAMES, fresh_s: float | None = None) -> None:
        async def sleep(_: float) -> None:
            await self.up.wait()

        def note(answer: Answer) -> None:
            self.answered[name].append(answer.number)

        reconnection = Reconnection(
            partial(LinkClient.open, endpoint, name=name),
            give_up_after_s=math.inf,
            fresh_s=fresh_s,
            say=self.said.append,
            sleep=sleep,
        )
        target = GrpcTarget(await reconnection.connect(), on_answer=note, reconnection=reconnection)
        self.targets[name] = target
        transmitter = Transmitter(codec())
        if self.video is not None:
            transmitter = sequences = SequenceTransmitter(self.video)
            target.on_outcome, target.recode = sequences.hear, sequences.recode

        def held() -> Iterator[ImageArray]:
            """The first pictures, and the others when `more` is set."""
            yield from pictures(min(count, FIRST))
            assert self.more.wait(PATIENCE_S)
            yield from pictures(count - min(count, FIRST))

        try:
            await send_pictures(held(), transmitter, target, fps=None, stop=asyncio.Event())
        finally:
            await target.close()


NAMES = ("north", "east", "south", "west")


def test_a_receiver_that_is_killed_and_started_again_under_four_senders() -> None:
    async def test() -> None:
        link, gate = Link(), Gate()
        received: dict[str, list[int]] = defaultdict(list)
        async with AsyncExitStack() as stack:
            async with Receiver(gate, CONFIG) as first:
                assert first.service is not None
                endpoint = first.service.endpoint
                gate.opened.set()
                sending = [asyncio.create_task(link.send(name, endpoint)) for name in NAMES]
                await until(lambda: all(len(link.answered[name]) == FIRST for name in NAMES))
                gate.opened.clear()  # what is sent from now on has no answer when the receiver dies
                link.more.set()
                await until(lambda: all(link.targets[name].unanswered == 6 for name in NAMES))
                await kill(first)
                gate.opened.set()
            await until(lambda: sum("no answer yet" in line for line in link.said) == 4)
            before = {name: list(numbers) for name, numbers in link.answered.items()}
            second = await stack.enter_async_context(Receiver(perception(), replace(CONFIG, grpc=endpoint)))
            service = second.service
            assert service is not None

            def note(frame: Frame, outcome: Outcome, perceived: Perceived | None) -> None:
                del outcome, perceived
                received[service.senders[frame.sender].name].append(frame.number)

            second.engine.observers.append(note)
            link.up.set()
            await asyncio.gather(*sending)
        for name in NAMES:
            counters = link.targets[name].counters
            assert sorted(link.answered[name]) == list(range(FRAMES))  # each once, none twice
            assert not set(before[name]) & set(received[name])  # nothing that was answered was sent again
            assert (counters.sent, counters.answered, counters.lost) == (FRAMES, FRAMES, 0)
            assert counters.reconnections == 1
            assert counters.sent_again >= 6
            assert link.targets[name].unanswered == 0
        assert sum("is back" in line for line in link.said) == 4

    run(test)


def test_a_video_is_coded_again_for_a_receiver_that_was_restarted() -> None:
    video = sequence_codec(level=100)
    seeing = Perception(video.codec, expert(), sequences=video)

    async def test() -> None:
        link, gate = Link(video), Gate()
        async with Receiver(gate, CONFIG) as first:
            assert first.service is not None
            endpoint = first.service.endpoint
            gate.opened.set()
            sending = asyncio.create_task(link.send("car", endpoint))
            await until(lambda: len(link.answered["car"]) == FIRST)
            gate.opened.clear()
            link.more.set()
            await until(lambda: link.targets["car"].unanswered == 6)
            await kill(first)
            gate.opened.set()
        await until(lambda: any("no answer yet" in line for line in link.said))
        async with Receiver(seeing, replace(CONFIG, grpc=endpoint)):
            link.up.set()
            await sending
        counters = link.targets["car"].counters
        assert (counters.sent, counters.answered, counters.lost) == (FRAMES, FRAMES, 0)
        assert not counters.dropped

    run(test)


def test_a_video_with_a_gap_begins_again_with_the_next_frame() -> None:
    sender = SequenceTransmitter(sequence_codec(level=100))
    images = list(pictures(4))
    for number, image in enumerate(images):
        sender.code(image, 0.1 * number)
    assert sender.recode([(1, images[1]), (3, images[3])]) is None
    assert _is_key(sender.code(images[0], 0.5))
    again = sender.recode([(3, images[3]), (4, images[0])])
    assert again is not None
    assert [_is_key(stream) for stream in again] == [True, False]
    assert not _is_key(sender.code(images[1], 0.6))


def _is_key(stream: bytes | None) -> bool:
    assert stream is not None
    (data,) = sequence_codec(level=100).unwrapped(bitstream.unpack_slices(stream))
    return is_session(data or b"")


def test_what_is_too_old_is_counted_as_lost() -> None:
    async def test() -> None:
        link, gate = Link(), Gate()
        async with Receiver(gate, CONFIG) as first:
            assert first.service is not None
            endpoint = first.service.endpoint
            link.more.set()
            sending = asyncio.create_task(link.send("car", endpoint, fresh_s=0.0))
            await until(lambda: "car" in link.targets and link.targets["car"].unanswered == 6)
            await kill(first)
            gate.opened.set()
        link.up.set()
        async with Receiver(perception(), replace(CONFIG, grpc=endpoint)):
            await sending
        counters = link.targets["car"].counters
        assert counters.lost >= 6
        assert counters.answered + counters.lost == counters.sent == FRAMES
        assert sorted(link.answered["car"]) == list(range(counters.lost, FRAMES))

    run(test)


def test_a_receiver_that_goes_away_while_the_last_answers_are_missing() -> None:
    async def test() -> None:
        link, gate = Link(), Gate()
        async with Receiver(gate, CONFIG) as first:
            assert first.service is not None
            endpoint = first.service.endpoint
            link.more.set()
            sending = asyncio.create_task(link.send("car", endpoint, count=4))
            await until(lambda: "car" in link.targets and link.targets["car"].counters.sent == 4)
            await kill(first)
            gate.opened.set()
        async with Receiver(perception(), replace(CONFIG, grpc=endpoint)):
            link.up.set()
            await sending
        assert sorted(link.answered["car"]) == [0, 1, 2, 3]

    run(test)


def test_a_receiver_that_comes_back_with_another_codec_ends_the_sending() -> None:
    async def test() -> None:
        async with Receiver(perception(), CONFIG) as first:
            assert first.service is not None
            endpoint = first.service.endpoint
            attempts = Attempts()
            client = await LinkClient.open(endpoint)
            reconnection = Reconnection(partial(LinkClient.open, endpoint, fingerprint=b"12345678"))
            target = GrpcTarget(client, reconnection=reconnection)
            await kill(first)
        async with Receiver(perception(), replace(CONFIG, grpc=endpoint)):
            with pytest.raises(LinkError, match="send with that one"):
                await target.send(0, stream(), next(pictures(1)))
            await target.close()
        assert attempts.pauses_s == []

    run(test)


def test_an_original_that_does_not_fit_is_left_out_and_counted() -> None:
    async def test() -> None:
        config = replace(CONFIG, service=patient_limits(max_frame_bytes=len(stream()) + 100))
        async with Receiver(perception(), config) as receiver:
            assert receiver.service is not None
            target = GrpcTarget(await LinkClient.open(receiver.service.endpoint), originals=True)
            await target.send(0, stream(), next(pictures(1)))
            await target.finish()
            await target.close()
        assert (target.counters.answered, target.counters.originals_left_out) == (1, 1)

    run(test)


def test_the_end_waits_as_long_as_outcomes_come() -> None:
    async def test() -> None:
        gate = Gate()
        async with Receiver(gate, CONFIG) as receiver:
            assert receiver.service is not None
            target = GrpcTarget(await LinkClient.open(receiver.service.endpoint))
            for number in range(2):
                await target.send(number, stream(), next(pictures(1)))
            await until(lambda: bool(gate.batches))
            with patch.object(grpc_target, "DRAIN_S", 0.05), pytest.raises(TimeoutError):
                await target.finish()
            gate.opened.set()
            await target.finish()
            await target.close()
        assert (target.counters.answered, target.unanswered) == (2, 0)

    run(test)


def test_a_patient_sender_waits_for_its_answers_and_says_so() -> None:
    async def test() -> None:
        gate, attempts = Gate(), Attempts()
        async with Receiver(gate, CONFIG) as receiver:
            assert receiver.service is not None
            client = await LinkClient.open(receiver.service.endpoint, patient=True)
            target = GrpcTarget(client, reconnection=attempts.reconnection(), patient=True)
            for number in range(2):
                await target.send(number, stream(), next(pictures(1)))
            with patch.object(grpc_target, "DRAIN_S", 0.01):
                finishing = asyncio.create_task(target.finish())
                await until(lambda: len(attempts.said) > 2)
                gate.opened.set()
                await finishing
            await target.close()
        assert (target.counters.answered, target.unanswered) == (2, 0)
        assert attempts.said[0] == "still waiting for 2 answers; Ctrl-C ends the waiting"

    run(test)


@pytest.mark.parametrize("patient", [False, True])
def test_an_interrupt_at_the_end_shortens_the_waiting(patient: bool) -> None:
    async def test() -> None:
        gate = Gate()
        async with Receiver(gate, CONFIG) as receiver:
            assert receiver.service is not None
            client = await LinkClient.open(receiver.service.endpoint)
            reconnection = Attempts().reconnection(stop=asyncio.Event())
            target = GrpcTarget(client, reconnection=reconnection, patient=patient)
            await target.send(0, stream(), next(pictures(1)))
            finishing = asyncio.create_task(target.finish())
            await until(lambda: bool(gate.batches))
            assert not finishing.done()
            with patch.object(grpc_target, "INTERRUPTED_S", 0.05):
                reconnection.stop.set()
                with pytest.raises(TimeoutError):
                    await finishing
            await target.close()
            gate.opened.set()

    run(test)
