"""UDP on loopback: complete frames, injected loss, deadlines, pacing, floods, slow and failing readers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from gosvae.bitstream import Header, pack_slices, salvage, unpack_slices
from gosvae.errors import ConfigError
from gosvae.packets import Inlet, Reassembler, ReceivedFrame, Recovery, packetise, protect
from gosvae.protocol.feedback import Feedback
from gosvae.receiver.udp import UdpReceiver, serve_udp
from gosvae.sender.udp import UdpSender
from small_link import PATIENCE_S, forward, run, until

HEADER = Header(b"mark", 12, 13, 3)
HOST = "127.0.0.1"


def stream(frame: int, n_bytes: int = 190) -> bytes:
    return pack_slices(HEADER, [bytes([frame % 256, n]) * (n_bytes // 2) for n in range(8)], "interleaved")


class Lossy(UdpSender):
    """Loses datagrams on the way to the socket."""

    lose: Callable[[bytes], bool]

    async def send(self, stream: bytes) -> int:
        assert self._transport is not None
        real = self._transport.sendto
        self._transport.sendto = lambda data: None if self.lose(data) else real(data)  # type: ignore[method-assign,misc]
        try:
            return await super().send(stream)
        finally:
            self._transport.sendto = real  # type: ignore[method-assign]


def patient(**options: Any) -> Inlet:
    """An inlet whose deadline is far away, however busy the machine is."""
    return Inlet(1000 * PATIENCE_S, **options)


def test_frames_arrive_to_the_byte() -> None:
    async def test() -> None:
        frames: list[ReceivedFrame] = []
        async with (
            await UdpReceiver.open(HOST, 0, frames.append, inlet=patient()) as receiver,
            await UdpSender.open(
                *receiver.address, stream_id=5, first_frame=0, overhead=0.25, slices_per_packet=1
            ) as sender,
        ):
            on_air = 0
            for n in range(30):
                on_air += await sender.send(stream(n))
                await until(lambda n=n: len(frames) == n + 1)  # type: ignore[misc]
            await until(lambda: receiver.counters.datagrams == 300)
            assert receiver.counters.octets == sender.octets == on_air
        assert (sender.frames, sender.datagrams, sender.errors) == (30, 300, 0)
        assert [(f.stream_id, f.frame, f.stream) for f in frames] == [(5, n, stream(n)) for n in range(30)]
        assert receiver.counters.delivered == receiver.inlet.reassembler.counters.complete == 30
        assert receiver.inlet.reassembler.counters.duplicates == receiver.inlet.recovery.counters.recovered == 0

    run(test)


def test_losses_are_repaired_and_what_is_not_is_closed_by_the_deadline() -> None:
    async def test() -> None:
        frames: list[ReceivedFrame] = []
        random = Random(3)
        passed = 0

        def lose(_: bytes) -> bool:
            nonlocal passed
            lost = random.random() < 0.15
            passed += not lost
            return lost

        Lossy.lose = staticmethod(lose)
        inlet = patient(reassembler=Reassembler(window=1000))
        async with (
            await UdpReceiver.open(HOST, 0, frames.append, inlet=inlet) as receiver,
            await Lossy.open(*receiver.address, first_frame=0, overhead=0.25, slices_per_packet=1) as sender,
        ):
            for n in range(100):
                await sender.send(stream(n))
                await until(lambda: receiver.counters.datagrams == passed)
            assert receiver.counters.expired == 0
            forward(PATIENCE_S)
            await until(lambda: len(frames) == 100)
        counters = receiver.counters
        complete = [frame for frame in frames if not frame.missing]
        assert all(frame.stream == stream(frame.frame) for frame in complete)
        assert 70 < len(complete) < 95  # binomial: 0.82 of the frames lose at most 2 of 10 datagrams
        assert counters.expired == 100 - len(complete)
        assert inlet.recovery.counters.recovered > 40
        for frame in frames:
            sent, there = unpack_slices(stream(frame.frame)).slices, salvage(frame.stream).slices
            assert all(a in (None, b) for a, b in zip(there, sent, strict=True))

    run(test)


def test_with_a_key_only_sealed_datagrams_are_taken() -> None:
    key = b"k" * 32

    async def test() -> None:
        frames: list[ReceivedFrame] = []
        lengths: list[int] = []
        Lossy.lose = staticmethod(lambda data: lengths.append(len(data)))  # type: ignore[func-returns-value]
        async with (
            await UdpReceiver.open(HOST, 0, frames.append, inlet=patient(), key=key) as receiver,
            await Lossy.open(*receiver.address, overhead=0.25, slices_per_packet=1, mtu_bytes=500, key=key) as sender,
            await UdpSender.open(*receiver.address, stream_id=sender.stream_id) as plain,
            await UdpSender.open(*receiver.address, stream_id=sender.stream_id, key=b"x" * 32) as stranger,
        ):
            await plain.send(stream(1))
            await stranger.send(stream(2))
            await until(lambda: receiver.counters.datagrams == plain.datagrams + stranger.datagrams)
            assert await sender.send(stream(0, 5000)) == sum(lengths)
            await until(lambda: len(frames) == 1)
            assert receiver.opener is not None
            assert receiver.opener.counters.forged == plain.datagrams + stranger.datagrams
            told: list[Feedback] = []
            sender.on_feedback = told.append
            forged = Feedback(sender.stream_id, 7, 0)
            sender.datagram_received(forged.pack(), (HOST, 1))
            receiver.tell(replace(forged, decoded=1))
            await until(lambda: told == [replace(forged, decoded=1)])
        assert frames[0].stream == stream(0, 5000)
        assert 480 <= max(lengths) <= 500
        with pytest.raises(ConfigError, match="a key of 5 bytes"):
            await UdpReceiver.open(HOST, 0, frames.append, key=b"short")

    run(test)


def test_the_pace_is_kept() -> None:
    async def test() -> None:
        async with await UdpReceiver.open(HOST, 0, lambda _: None) as receiver:
            async with await UdpSender.open(*receiver.address, kbps=400.0, slices_per_packet=1) as sender:
                loop, real_sleep, waited_s = asyncio.get_running_loop(), asyncio.sleep, 0.0

                async def sleep(seconds: float) -> None:
                    nonlocal waited_s
                    waited_s += seconds
                    forward(seconds)
                    await real_sleep(0)

                began_s = loop.time()
                with patch.object(asyncio, "sleep", sleep):
                    for n in range(3):
                        await sender.send(stream(n))
                seconds = loop.time() - began_s
            # The last datagram starts when those before it are through.
            assert seconds > 8 * (sender.octets - 220) / 400_000
            assert waited_s < 8 * sender.octets / 400_000

    run(test)


def test_noise_and_floods_change_nothing_and_take_no_memory() -> None:
    async def test() -> None:
        frames: list[ReceivedFrame] = []
        inlet = patient(reassembler=Reassembler(max_frames=16), recovery=Recovery(max_bytes=200_000))
        random = Random(1)
        async with await UdpReceiver.open(HOST, 0, frames.append, inlet=inlet) as receiver:
            for n in range(3000):
                first = protect(packetise(stream(n), stream_id=n, frame=n, slices_per_packet=1))[n % 10]
                receiver.datagram_received(first, (HOST, 1))
                receiver.datagram_received(random.randbytes(n % 300), (HOST, 1))
                receiver.datagram_received(b"\xcb" + random.randbytes(n % 300), (HOST, 1))
                assert len(inlet._began_s) <= 33
                assert inlet.recovery.bytes_kept <= 200_000
            assert len(receiver._queue) <= 64
            assert receiver.counters.dropped > 2000, "nothing was given to the reader in all that time"
            async with await UdpSender.open(*receiver.address, stream_id=2**32 - 1) as sender:
                await sender.send(stream(9))
                await until(lambda: any(frame.stream == stream(9) for frame in frames))
        assert receiver.counters.datagrams == 9002, "the last stream took two"
        assert len(frames) == receiver.counters.delivered

    run(test)


def test_a_slow_reader_gets_the_newest_frames() -> None:
    async def test() -> None:
        frames: list[int] = []
        go = asyncio.Event()

        async def slow(frame: ReceivedFrame) -> None:
            frames.append(frame.frame)
            await go.wait()

        async with (
            await UdpReceiver.open(HOST, 0, slow, max_frames=3, inlet=patient()) as receiver,
            await UdpSender.open(*receiver.address, first_frame=0) as sender,
        ):
            try:
                await sender.send(stream(0))
                await until(lambda: frames == [0])
                for n in range(1, 11):
                    await sender.send(stream(n))
                await until(lambda: receiver.counters.dropped == 7)
            finally:
                go.set()
            await until(lambda: len(frames) == 4)
        assert frames == [0, 8, 9, 10]

    run(test)


def test_a_frame_larger_than_the_queue_is_dropped() -> None:
    async def test() -> None:
        frames: list[ReceivedFrame] = []
        async with (
            await UdpReceiver.open(HOST, 0, frames.append, max_bytes=1000, inlet=patient()) as receiver,
            await UdpSender.open(*receiver.address) as sender,
        ):
            await sender.send(stream(0))
            await until(lambda: receiver.counters.dropped == 1)
        assert frames == []

    run(test)


def test_a_reader_that_fails_gets_the_next_frame(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async def fails(frame: ReceivedFrame) -> None:
            raise ValueError(f"cannot read {frame.frame}")

        async with (
            await UdpReceiver.open(HOST, 0, fails, inlet=patient()) as receiver,
            await UdpSender.open(*receiver.address, first_frame=0) as sender,
        ):
            await sender.send(stream(0))
            await sender.send(stream(1))
            await until(lambda: receiver.counters.failed == 2)
        assert "cannot read 1" in caplog.text

    run(test)


def test_closing_delivers_what_is_there() -> None:
    async def test() -> None:
        frames: list[ReceivedFrame] = []
        async with await UdpReceiver.open(HOST, 0, frames.append, inlet=patient()) as receiver:
            receiver.datagram_received(packetise(stream(0), stream_id=1, frame=0, slices_per_packet=1)[3], (HOST, 1))
        assert [frame.missing for frame in frames] == [(0, 1, 2, 4, 5, 6, 7)]
        await receiver.close()

    run(test)


def test_serving_ends_with_its_task() -> None:
    async def test() -> None:
        frames: list[ReceivedFrame] = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind((HOST, 0))
            port = free.getsockname()[1]
        serving = asyncio.create_task(serve_udp(HOST, port, frames.append))
        async with await UdpSender.open(HOST, port) as sender:
            while not frames:  # nobody says from when on it listens
                await sender.send(stream(0))
                await asyncio.sleep(0.01)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    run(test)


def test_nobody_listens_and_sending_goes_on() -> None:
    async def test() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind((HOST, 0))
            port = free.getsockname()[1]
        async with await UdpSender.open(HOST, port) as sender:
            for n in range(5):
                await sender.send(stream(n))
            assert sender.frames == 5
            await until(lambda: sender.errors > 0)
        with pytest.raises(ConfigError, match="this sender is closed"):
            await sender.send(stream(0))

    run(test)


def test_datagrams_keep_to_the_mtu_with_repair_packets_too() -> None:
    async def test() -> None:
        frames: list[ReceivedFrame] = []
        lengths: list[int] = []
        Lossy.lose = staticmethod(lambda data: lengths.append(len(data)))  # type: ignore[func-returns-value]
        async with (
            await UdpReceiver.open(HOST, 0, frames.append, inlet=patient()) as receiver,
            await Lossy.open(*receiver.address, classes=[(2, 1.0)], mtu_bytes=500) as sender,
        ):
            await sender.send(stream(0, 5000))
            await until(lambda: len(frames) == 1)
        assert 480 <= max(lengths) <= 500

    run(test)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"kbps": 0.0}, "a pace of 0.0"), ({"mtu_bytes": 60}, "60 bytes"), ({"mtu_bytes": 65508}, "65508")],
)
def test_impossible_senders(arguments: dict[str, float], said: str) -> None:
    async def test() -> None:
        with pytest.raises(ConfigError, match=said):
            await UdpSender.open(HOST, 1, **arguments)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="a queue of 0 frames"):
            await UdpReceiver.open(HOST, 0, lambda _: None, max_frames=0)
        with pytest.raises(ConfigError, match="a deadline of 0"):
            Inlet(0.0)

    run(test)


def test_deadlines_on_a_clock_of_the_caller() -> None:
    inlet = Inlet(100.0, reassembler=Reassembler(window=100))
    sent = {n: packetise(stream(n), stream_id=1, frame=n, slices_per_packet=1) for n in range(4)}
    assert inlet.next_deadline_s is None
    assert inlet.add(sent[0][0], 5.0) == inlet.add(sent[1][0], 5.05) == inlet.add(sent[0][1], 5.09) == []
    assert inlet.next_deadline_s == pytest.approx(5.1)
    assert inlet.expire(5.09) == []
    (frame,) = inlet.expire(5.11)
    assert (frame.frame, frame.missing) == (0, (2, 3, 4, 5, 6, 7))
    assert inlet.next_deadline_s == pytest.approx(5.15)
    (frame,) = [frame for data in sent[1] for frame in inlet.add(data, 5.12)]
    assert frame.stream == stream(1)
    assert inlet.next_deadline_s is None
    assert inlet.add(sent[0][5], 5.2) == [], "late"
    assert inlet.next_deadline_s is None
