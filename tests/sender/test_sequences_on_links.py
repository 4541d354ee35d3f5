"""Videos over gRPC and UDP: references that the receiver has, recovery from losses, and receivers of pictures only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from gosvae import bitstream
from gosvae.codecs.sequence.codec import SequenceCodec, is_wrapped
from gosvae.codecs.sequence.format import HEADER_BYTES, FrameHeader, is_session
from gosvae.errors import BitstreamError, ForeignStreamError, MissingReferenceError, PacketError
from gosvae.packets.compact import COMPACT_OVERHEAD_BYTES
from gosvae.protocol.feedback import Feedback, Outcomes
from gosvae.protocol.frames import Answer, Dropped, Perceived, Reason
from gosvae.protocol.messages import pb
from gosvae.protocol.security import Endpoint
from gosvae.receiver.engine import EngineLimits
from gosvae.receiver.perception import Perception
from gosvae.receiver.receiver import Receiver, ReceiverConfig
from gosvae.sender.client import CALL_OVERHEAD_BYTES, LinkClient
from gosvae.sender.grpc_target import GrpcTarget
from gosvae.sender.sender import UdpTarget, send_pictures
from gosvae.sender.sequence_transmitter import SequenceTransmitter
from gosvae.sender.target import SenderCounters, Target
from gosvae.sender.transmitter import Transmitter
from gosvae.sender.udp import UdpSender
from gosvae.tensors import ImageArray
from gosvae.wire import VIDEO_VERSION
from small_link import HOST, LOOPBACK, PATIENCE_S, perception, run, until
from tiny import expert, sequence_codec, streets

PATIENT = EngineLimits(policy="block", deadline_ms=0.0)


def looks(codec: SequenceCodec) -> Perception:
    return Perception(codec.codec, expert(), sequences=codec)


def frames(count: int) -> Iterator[ImageArray]:
    return (np.roll(streets()[0].image_uint8_HW3, 2 * number, axis=1) for number in range(count))


def header_of(codec: SequenceCodec, stream: bytes | None) -> FrameHeader:
    assert stream is not None
    (data,) = codec.unwrapped(bitstream.unpack_slices(stream))
    assert data is not None
    return FrameHeader.unpack(data[HEADER_BYTES * is_session(data) :])[0]


def test_a_receiver_keeps_the_references_of_each_sender() -> None:
    codec = sequence_codec(level=100)
    one, other = (SequenceTransmitter(codec) for _ in range(2))
    seen = looks(codec)
    for number, (a, b) in enumerate(zip(frames(4), [*frames(4)][::-1], strict=True)):
        streams = [sender.code(picture, 0.1 * number) for sender, picture in ((one, a), (other, b))]
        assert all(stream is not None and seen.is_sequence(stream) for stream in streams)
        results = seen([(stream or b"", False) for stream in streams], ["one", "other"])
        assert all(isinstance(result, Perceived) for result in results)
    stream = one.code(next(frames(1)), 1.0)
    (result,) = seen([(stream or b"", False)], ["a third"])
    assert isinstance(result, Dropped)
    assert result.reason is Reason.INCOMPLETE
    assert not seen.is_sequence(codec.codec.compress(next(frames(1))))


def test_a_video_that_is_worked_on_holds_up_no_thread() -> None:
    """Usual and large frames have threads of their own, and a decoder is used by one of them at a time."""
    codec = sequence_codec(level=100)
    streams = [SequenceTransmitter(codec).code(picture, 0.0) for picture in frames(2)]
    seen = looks(codec)
    decoder, turn = seen._decoder_of("busy", codec)
    with turn:
        busy, other = seen([(stream or b"", False) for stream in streams], ["busy", "other"])
    assert isinstance(busy, Dropped)
    assert busy.reason is Reason.INCOMPLETE
    assert isinstance(other, Perceived)
    (again,) = seen([(streams[0] or b"", False)], ["busy"])
    assert isinstance(again, Perceived)
    assert seen._decoder_of("busy", codec)[0] is decoder


def test_a_refusal_makes_the_next_frame_depend_on_an_acknowledged_one() -> None:
    codec = sequence_codec(level=100)
    sender, pictures = SequenceTransmitter(codec), frames(12)

    def distance(now_s: float) -> int:
        return header_of(codec, sender.code(next(pictures), now_s)).distance

    assert [distance(0.0), distance(0.1)] == [0, 1]
    sender.hear(0, None)
    assert distance(0.2) == 1
    sender.hear(1, Reason.INCOMPLETE)
    sender.hear(2, Reason.INCOMPLETE)
    assert distance(0.3) == 3  # on frame 0
    assert distance(0.4) == 4
    sender.hear(3, None)
    assert distance(0.5) == 1
    sender.hear(5, Reason.STALE)
    assert distance(0.6) == 3
    sender.hear(6, Reason.INCOMPLETE)  # the receiver has lost even what it had acknowledged
    assert distance(0.7) == 0
    sender.hear(7, None)
    assert distance(0.8) == 1
    assert distance(2.5) == 0  # after more than a second without a word


@pytest.mark.parametrize("lossy", [False, True])
@pytest.mark.parametrize("lost", [{0}, {3}, {0, 3}, {0, 2, 3, 4}, {5, 6, 7, 8}], ids=str)
def test_frames_depend_on_others_again_after_a_loss(lost: set[int], lossy: bool) -> None:
    """The receiver lacks the first frame, or restarts, while the outcomes of two more frames are under way."""
    codec, delay = sequence_codec(level=100), 2
    sender, decoder = SequenceTransmitter(codec, lossy=lossy), codec.decoder()
    outcomes: list[Reason | None] = []
    distances: list[int] = []
    for number, picture in enumerate(frames(20)):
        if number > delay:
            sender.hear(number - delay - 1, outcomes[number - delay - 1])
        stream = sender.code(picture, 0.1 * number)
        distances.append(header_of(codec, stream).distance)
        outcomes.append(Reason.INCOMPLETE)
        if number not in lost:
            with suppress(MissingReferenceError):
                decoder.decode_parts(codec.unwrapped(bitstream.unpack_slices(stream or b"")))
                outcomes[-1] = None
    first_key = max(number for number in range(20) if not distances[number])
    assert all(distances[first_key + 1 :])
    recovered = max(lost) + delay + 2
    assert first_key <= recovered
    assert outcomes[recovered:] == [None] * (20 - recovered)


def test_a_receiver_of_pictures_gets_pictures() -> None:
    codec = sequence_codec(level=100)
    sender, pictures = SequenceTransmitter(codec), frames(3)
    first = sender.code(next(pictures), 0.0)
    (result,) = Perception(codec.codec, expert())([(first or b"", False)])
    assert isinstance(result, Dropped)
    assert result.reason in (Reason.DAMAGED, Reason.FOREIGN)
    sender.hear(0, result.reason)
    second = sender.code(next(pictures), 0.1)
    assert second is not None
    assert not is_wrapped(bitstream.unpack_slices(second))
    codec.codec.decompress(second)


def test_a_video_over_grpc_is_answered() -> None:
    codec = sequence_codec(level=100)

    async def test() -> None:
        config = ReceiverConfig(grpc=LOOPBACK, engine=PATIENT)
        async with Receiver(looks(codec), config) as receiver:
            assert receiver.service is not None
            client = await LinkClient.open(
                receiver.service.endpoint, name="camera", fingerprint=codec.codec.fingerprint
            )
            assert client.welcome.video == VIDEO_VERSION
            target, sender = GrpcTarget(client), SequenceTransmitter(codec)
            target.on_outcome = sender.hear
            try:
                await send_pictures(frames(8), sender, target, fps=None, stop=asyncio.Event())
            finally:
                await target.close()
            counters, (state,) = target.counters, receiver.board.state(None)["senders"]
            assert counters.answered == counters.sent == 8
            # Streams are counted with their containers of 13 bytes, which stay at home; messages have up to 15 more.
            assert counters.link_bytes <= counters.stream_bytes + 8 * (CALL_OVERHEAD_BYTES + 15 - 13)
            assert 0 <= state["unchanged"] <= 1
            assert state["distance"] == 0.88  # 7 of 8 frames depend on the one before

    run(test)


def test_a_receiver_that_does_not_know_bare_frames_gets_containers() -> None:
    codec = sequence_codec(level=100)

    async def test() -> None:
        config = ReceiverConfig(grpc=LOOPBACK, engine=PATIENT)
        async with Receiver(looks(codec), config) as receiver:
            assert receiver.service is not None
            client = await LinkClient.open(receiver.service.endpoint, fingerprint=codec.codec.fingerprint)
            client.welcome = replace(client.welcome, video=0)
            target, sender = GrpcTarget(client), SequenceTransmitter(codec)
            target.on_outcome = sender.hear
            try:
                await send_pictures(frames(3), sender, target, fps=None, stop=asyncio.Event())
            finally:
                await target.close()
            assert target.counters.answered == 3

    run(test)


def test_a_rate_leaves_frames_of_a_complete_video_out() -> None:
    """A frame that is not sent is not tried again: the rate of frames is a choice."""
    sender = SequenceTransmitter(sequence_codec(level=100), kbps=8.0, fps=10.0, max_age_ms=300.0)
    sent = []
    for number, picture in enumerate(frames(9)):
        stream = sender.code(picture, 5.0 + 0.1 * number, patient=True)
        if stream is not None:
            sent.append(number)
            sender.spend(10_000)  # far above the rate
    assert sent == [0, 3, 6]
    assert (sender.counters.coded, sender.counters.skipped, sender.waits) == (3, 6, False)


def test_a_picture_that_is_left_out_is_not_tried_again() -> None:
    class EverySecond(Transmitter):
        calls = 0

        @property
        def waits(self) -> bool:
            return False

        def _code(self, image_uint8_HW3: ImageArray, now_s: float, room: Callable[[float], int]) -> bytes | None:
            self.calls += 1
            return super()._code(image_uint8_HW3, now_s, room) if self.calls % 2 else None

    class Sink(Target):
        def __init__(self) -> None:
            self.counters = SenderCounters()

        async def send(self, number: int, stream: bytes, image_uint8_HW3: ImageArray) -> int:
            del number, image_uint8_HW3
            return len(stream)

        async def finish(self) -> None:
            pass

    async def test() -> None:
        sender, sink = EverySecond(sequence_codec(level=100).codec), Sink()
        await send_pictures(frames(5), sender, sink, fps=None, stop=asyncio.Event(), patient=True)
        assert (sender.calls, sink.counters.sent, sender.counters.skipped) == (5, 3, 2)

    run(test)


def test_a_bare_frame_before_its_session_is_refused() -> None:
    codec = sequence_codec(level=100)

    async def test() -> None:
        config = ReceiverConfig(grpc=LOOPBACK, engine=PATIENT)
        async with Receiver(looks(codec), config) as receiver:
            assert receiver.service is not None
            sender = SequenceTransmitter(codec)
            first, second = (sender.code(picture, 0.0) or b"" for picture in frames(2))
            async with await LinkClient.open(receiver.service.endpoint) as client:
                await client.send(1, second)
                await client.send(2, first)
                await client.send(3, second)
                await client.send_raw(pb().FromSender(frame=pb().Frame(number=4, video=b"\x0fGSV")).SerializeToString())
                outcomes = [await anext(client.answers()) for _ in range(4)]
            assert [type(outcome) for outcome in outcomes] == [Dropped, Answer, Answer, Dropped]
            assert isinstance(outcomes[0], Dropped)
            assert outcomes[0].reason is Reason.INCOMPLETE

    run(test)


def test_over_udp_frames_are_compact_once_the_receiver_has_told_that_it_takes_them() -> None:
    codec = sequence_codec(level=100).sliced(2)

    async def test() -> None:
        config = ReceiverConfig(udp=Endpoint(HOST, 0), engine=PATIENT, udp_deadline_ms=1000 * PATIENCE_S)
        async with Receiver(looks(codec), config) as receiver:
            assert receiver.udp is not None
            async with await UdpSender.open(*receiver.udp.address, slices_per_packet=1) as sender:
                target, transmitter, heard = UdpTarget(sender), SequenceTransmitter(codec), set[int]()

                def hear(number: int, reason: Reason | None) -> None:
                    transmitter.hear(number, reason)
                    if reason is None:
                        heard.add(number)

                target.on_outcome = hear
                for number, picture in enumerate([*frames(25)][::8]):
                    stream = transmitter.code(picture, 0.01 * number)
                    assert stream is not None
                    before = sender.octets
                    await target.send(number, stream, picture)
                    await until(lambda number=number: number in heard)
                    parts = bitstream.unpack_slices(stream).payloads
                    overhead = sender.octets - before - sum(map(len, parts))
                    assert overhead == len(parts) * (COMPACT_OVERHEAD_BYTES if number else 32)
                    await until(lambda: sender.compact)
            assert receiver.udp.inlet.compact.expanded >= 3

    run(test)


def test_a_lost_frame_over_udp_is_told_and_recovered() -> None:
    codec = sequence_codec(level=100)

    async def test() -> None:
        config = ReceiverConfig(udp=Endpoint(HOST, 0), engine=PATIENT, udp_deadline_ms=1000 * PATIENCE_S)
        async with Receiver(looks(codec), config) as receiver:
            assert receiver.udp is not None
            async with await UdpSender.open(*receiver.udp.address, first_frame=65530) as sender:
                target, transmitter, pictures = UdpTarget(sender), SequenceTransmitter(codec), frames(20)
                heard: list[tuple[int, Reason | None]] = []

                def hear(number: int, reason: Reason | None) -> None:
                    heard.append((number, reason))
                    transmitter.hear(number, reason)

                target.on_outcome = hear

                async def send(number: int, *, lose: bool = False) -> FrameHeader:
                    picture = next(pictures)
                    stream = transmitter.code(picture, 0.01 * number)
                    assert stream is not None
                    if lose:
                        sender.frames += 1
                    else:
                        await target.send(number, stream, picture)
                        await until(lambda: any(n == number for n, _ in heard))
                    return header_of(codec, stream)

                assert (await send(0)).distance == 0
                for number in range(1, 8):
                    assert (await send(number)).distance == 1
                await send(8, lose=True)
                assert (await send(9)).distance == 1
                assert (9, Reason.INCOMPLETE) in heard
                assert (await send(10)).distance == 3
                assert (10, None) in heard
                assert (await send(11)).distance == 1
                assert (11, None) in heard

    run(test)


def test_feedback_tells_the_latest_frames() -> None:
    outcomes = Outcomes()
    for number, decoded in ((65534, True), (65535, False), (1, True), (0, True), (2, False)):
        outcomes.add(number, decoded=decoded)
    feedback = outcomes.feedback(7)
    assert feedback == Feedback(7, 2, 0b10110)
    data = feedback.pack()
    assert data.hex(" ") == "fb 01 00 00 00 07 00 02 00 00 00 16"
    newer = outcomes.feedback(7, compact=True)
    assert newer.pack().hex(" ") == "fb 02 00 00 00 07 00 02 00 00 00 16"
    assert Feedback.unpack(newer.pack()) == newer == Feedback(7, 2, 0b10110, compact=True)
    assert Feedback.unpack(data) == feedback
    outcomes.add(40, decoded=True)
    outcomes.add(2, decoded=True)  # too old to be told
    assert outcomes.feedback(7) == Feedback(7, 40, 1)
    for bad in (b"", data[:-1], data + b"\0", b"\0" + data[1:]):
        with pytest.raises(PacketError):
            Feedback.unpack(bad)


def test_frames_of_others_are_refused() -> None:
    codec = sequence_codec(level=100)
    stream = SequenceTransmitter(codec).code(next(frames(1)), 0.0)
    assert stream is not None
    header = bitstream.unpack_slices(stream).header
    foreign = bitstream.Header(b"othr", header.height, header.width, header.entropy_model_id)
    with pytest.raises(ForeignStreamError):
        codec.unwrapped(bitstream.unpack_slices(bitstream.pack(foreign, b"data")))
    (data,) = codec.unwrapped(bitstream.unpack_slices(stream))
    assert data is not None
    with pytest.raises(BitstreamError, match="another size"):
        codec.unwrapped(bitstream.unpack_slices(codec.wrapped([data], header.height + 1, header.width)))
    with pytest.raises(BitstreamError):
        codec.unwrapped(bitstream.unpack_slices(codec.codec.compress(next(frames(1)))))
    for untrue in (
        bitstream.pack_slices(header, [data, data], "interleaved"),
        bitstream.pack_slices(header, [data, data], detail_count=1),
    ):
        with pytest.raises(BitstreamError, match="announces another kind of slices"):
            codec.unwrapped(bitstream.unpack_slices(untrue))
    assert perception().is_sequence(stream) is False


def test_a_frame_that_announces_another_size_than_its_video_is_dropped() -> None:
    """A receiver limits and shares its time by the size in the stream around a frame."""
    codec = sequence_codec(level=100)
    sender, seen = SequenceTransmitter(codec), looks(codec)
    key, later = (sender.code(picture, 0.1 * number) or b"" for number, picture in enumerate(frames(2)))
    assert isinstance(seen([(key, False)], ["one"])[0], Perceived)
    smaller = codec.wrapped(codec.unwrapped(bitstream.unpack_slices(later)), 1, 1)
    (dropped,) = seen([(smaller, False)], ["one"])
    assert isinstance(dropped, Dropped)
    assert dropped.reason is Reason.DAMAGED
    assert "another size than its key frame" in dropped.text
    assert isinstance(seen([(later, False)], ["one"])[0], Perceived)
