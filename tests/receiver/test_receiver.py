"""Sender and receiver put together: over gRPC and over UDP, with and without losses."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace

import numpy as np
import pytest

from gosvae.codecs.vq import VqCodec, VqOptions
from gosvae.errors import ImageError, LinkError
from gosvae.packets import recovery as recovery_module
from gosvae.packets.packet import packetise
from gosvae.packets.protection import Group, RepairPacket, Run
from gosvae.protocol.frames import Answer, Reason
from gosvae.protocol.security import Endpoint
from gosvae.receiver.engine import EngineLimits
from gosvae.receiver.receiver import Receiver, ReceiverConfig
from gosvae.sender.client import LinkClient
from gosvae.sender.grpc_target import GrpcTarget
from gosvae.sender.sender import UdpTarget, percentile, send_pictures
from gosvae.sender.transmitter import Transmitter
from gosvae.sender.udp import UdpSender
from gosvae.tensors import ImageArray
from receiver.test_engine import Gate
from small_link import LOOPBACK, PATIENCE_S, codec, forward, patient_limits, perception, run, until
from tiny import checkpoint, streets

CONFIG = ReceiverConfig(
    grpc=LOOPBACK,
    udp=LOOPBACK,
    page=LOOPBACK,
    engine=EngineLimits(deadline_ms=0),
    service=patient_limits(),
    udp_deadline_ms=1000 * PATIENCE_S,
)


def pictures(count: int) -> Iterator[ImageArray]:
    return (streets()[n % 4].image_uint8_HW3 for n in range(count))


def test_over_grpc() -> None:
    async def test() -> None:
        results: list[Answer] = []
        answered = threading.Event()

        def take(answer: Answer) -> None:
            results.append(answer)
            answered.set()

        def waits() -> Iterator[ImageArray]:
            """The last picture comes after the first answer, so that the receiver is told of a round trip."""
            yield from pictures(8)
            assert answered.wait(PATIENCE_S)
            yield from pictures(1)

        async with Receiver(perception(), CONFIG) as receiver:
            assert receiver.service is not None
            async with await LinkClient.open(receiver.service.endpoint, name="car") as client:
                target = GrpcTarget(client, originals=True, on_answer=take)
                transmitter = Transmitter(codec())
                await send_pictures(waits(), transmitter, target, fps=200.0, stop=asyncio.Event())
            counters = target.counters
            assert (counters.sent, counters.answered, target.unanswered) == (9, 9, 0)
            assert [result.number for result in results] == list(range(9))
            assert counters.stream_bytes < counters.link_bytes < counters.stream_bytes + 9 * 40  # originals apart
            assert len(counters.round_trips_ms) == len(counters.coding_ms) == 9
            (sender,) = receiver.board.state(None)["senders"]
            assert (sender["name"], sender["frames"]) == ("car", 9)
            assert sender["round_trip_ms"] > 0

    run(test)


def test_the_source_may_fail_or_be_interrupted() -> None:
    def fails() -> Iterator[ImageArray]:
        yield from pictures(3)
        raise ImageError("the third is damaged")

    async def test() -> None:
        async with Receiver(perception(), CONFIG) as receiver:
            assert receiver.service is not None
            async with await LinkClient.open(receiver.service.endpoint) as client:
                with pytest.raises(ImageError, match="third"):
                    await send_pictures(
                        fails(), Transmitter(codec()), GrpcTarget(client), fps=None, stop=asyncio.Event()
                    )
            async with await LinkClient.open(receiver.service.endpoint) as client:
                stop, target = asyncio.Event(), GrpcTarget(client)
                sending = asyncio.create_task(
                    send_pictures(pictures(10**6), Transmitter(codec()), target, fps=50.0, stop=stop)
                )
                await until(lambda: target.counters.answered > 3)
                stop.set()
                await sending
                assert target.counters.sent == target.counters.answered

    run(test)


def test_a_receiver_that_goes_away_is_noticed() -> None:
    async def test(stack: AsyncExitStack) -> None:
        async with Receiver(perception(), CONFIG) as receiver:
            assert receiver.service is not None
            client = await stack.enter_async_context(await LinkClient.open(receiver.service.endpoint))
            target = GrpcTarget(client)
            sending = asyncio.create_task(
                send_pictures(pictures(10**6), Transmitter(codec()), target, fps=100.0, stop=asyncio.Event())
            )
            await until(lambda: target.counters.answered > 3)
        with pytest.raises(LinkError, match=r"closing|ended the stream"):
            await sending

    async def closing() -> None:
        async with AsyncExitStack() as stack:
            await test(stack)

    run(closing)


def test_a_sender_waits_for_answers_where_too_many_are_missing() -> None:
    async def test() -> None:
        gate = Gate()
        config = replace(CONFIG, service=replace(CONFIG.service, max_pending_frames=3))
        async with Receiver(gate, config) as receiver:
            assert receiver.service is not None
            async with await LinkClient.open(receiver.service.endpoint) as client:
                target = GrpcTarget(client)
                sending = asyncio.create_task(
                    send_pictures(pictures(8), Transmitter(codec()), target, fps=None, stop=asyncio.Event())
                )
                await until(lambda: target.counters.sent == 3)
                await asyncio.sleep(0.1)
                assert target.counters.sent == 3
                gate.opened.set()
                await sending
                assert target.counters.answered == 8

    run(test)


def test_over_udp() -> None:
    sliced = VqCodec(checkpoint(), options=VqOptions(slices=4, layout="interleaved"))

    async def test() -> None:
        async with Receiver(perception(), CONFIG) as receiver:
            assert receiver.udp is not None
            async with await UdpSender.open(*receiver.udp.address, slices_per_packet=1, overhead=0.25) as sender:
                target = UdpTarget(sender)
                await send_pictures(pictures(6), Transmitter(sliced), target, fps=100.0, stop=asyncio.Event())
                await until(lambda: receiver.engine.counters.answered == 6)
            assert target.counters.sent == 6
            assert target.counters.link_bytes > 1.25 * target.counters.stream_bytes
            assert target.room(1000.0) < 800
            (shown,) = receiver.board.state(None)["senders"]
            assert (shown["transport"], shown["packet_loss"]) == ("udp", 0.0)
            assert receiver.engine.counters.unaccounted == 0

    run(test)


def test_over_udp_with_losses() -> None:
    sliced = VqCodec(checkpoint(), options=VqOptions(slices=4, layout="interleaved"))

    async def test() -> None:
        async with Receiver(perception(), CONFIG) as receiver:
            udp = receiver.udp
            assert udp is not None
            async with await UdpSender.open(*udp.address, slices_per_packet=1) as sender:
                assert sender._transport is not None
                real, count = sender._transport.sendto, iter(range(10**6))
                sender._transport.sendto = lambda data: real(data) if next(count) % 4 else None  # type: ignore[method-assign,misc]
                receiver.board.state(None)
                await send_pictures(pictures(6), Transmitter(sliced), UdpTarget(sender), fps=50.0, stop=asyncio.Event())
                await until(lambda: udp.counters.datagrams == 18)
                forward(PATIENCE_S)  # the deadline of all frames is over
                await until(lambda: receiver.engine.counters.answered == 6)
            assert udp.inlet.reassembler.counters.partial == 6
            (shown,) = receiver.board.state(None)["senders"]
            assert shown["packet_loss"] == 0.25
            assert receiver.board.state(shown["id"])["selected"]["concealed"] > 0.1

    run(test)


def test_udp_takes_garbage() -> None:
    async def test() -> None:
        async with Receiver(perception(), CONFIG) as receiver:
            assert receiver.udp is not None
            foreign = VqCodec(checkpoint(seed=9)).compress(streets()[0].image_uint8_HW3)
            async with await UdpSender.open(*receiver.udp.address) as sender:
                await sender.send(foreign)
                assert sender._transport is not None
                for data in (b"", b"\xca", b"\xcb" * 40, bytes(1200)):
                    sender._transport.sendto(data)
                await until(lambda: receiver.engine.counters.received == 1)
            await until(lambda: receiver.engine.counters.dropped[Reason.FOREIGN] == 1)

    run(test)


def test_forged_repair_packets_take_a_bounded_time_of_a_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred groups whose decoding would take 20 ms of processor time each."""
    attempts = 0

    def recover(group: Group, symbols: list[tuple[int, bytes]]) -> None:
        nonlocal attempts
        del group, symbols
        attempts += 1
        end_s = time.thread_time() + 0.02
        while time.thread_time() < end_s:
            pass

    monkeypatch.setattr(recovery_module, "recover", recover)

    async def test() -> None:
        async with Receiver(perception(), replace(CONFIG, grpc=None, page=None)) as receiver:
            assert receiver.udp is not None
            for frame in range(100):
                group = Group(1, frame, (Run(0, 0, 1),), 240)
                receiver.udp.datagram_received(RepairPacket(group, 1, bytes(240)).to_bytes(), ("127.0.0.1", 9))
            counters = receiver.udp.inlet.recovery.counters
            assert counters.kept == 100
            assert counters.deferred == 100 - attempts
            assert attempts < 50

    run(test)


def test_frames_over_udp_reach_the_engine_in_order() -> None:
    """Packets of two frames arrive crosswise: the newer frame is whole first, and the rest of the older one is late."""
    sliced = VqCodec(checkpoint(), options=VqOptions(slices=4, layout="interleaved"))
    first, second = (
        packetise(sliced.compress(image), stream_id=1, frame=number, slices_per_packet=1)
        for number, image in enumerate(pictures(2))
    )

    async def test() -> None:
        arrived: list[tuple[int, bool]] = []
        async with Receiver(perception(), replace(CONFIG, grpc=None, page=None)) as receiver:
            receiver.engine.observers.append(lambda frame, *_: arrived.append((frame.number, frame.incomplete)))
            udp = receiver.udp
            assert udp is not None
            for data in (*first[:2], *second, *first[2:]):
                udp.datagram_received(data, ("127.0.0.1", 9))
            await until(lambda: receiver.engine.counters.answered == 2)
            assert sorted(arrived) == [(0, True), (1, False)]
            assert udp.inlet.reassembler.counters.late == 2

    run(test)


def test_ports_in_use_leave_nothing_open() -> None:
    async def test() -> None:
        async with Receiver(perception(), CONFIG) as first:
            assert first.service is not None
            assert first.udp is not None
            assert first.web is not None
            for taken in (
                replace(CONFIG, grpc=first.service.endpoint),
                replace(CONFIG, udp=Endpoint(*first.udp.address)),
                replace(CONFIG, page=first.web.endpoint),
            ):
                with pytest.raises(LinkError, match="cannot listen"):
                    await Receiver(perception(), taken).__aenter__()

    run(test)


def test_percentiles() -> None:
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert np.isnan(percentile([], 50))
