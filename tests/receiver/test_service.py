"""The gRPC service against good clients, bad ones, and ones that vanish."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gosvae.errors import ConfigError, LinkError
from gosvae.protocol.frames import Answer, Dropped, Outcome, Reason
from gosvae.protocol.messages import pb, printable
from gosvae.protocol.security import ClientTls, Endpoint, ServerTls
from gosvae.receiver.engine import EngineLimits
from gosvae.receiver.service import LinkService
from gosvae.receiver.session import ServiceLimits
from gosvae.sender.client import LinkClient, UnreachableError, _Ending
from receiver.test_engine import Gate, reasons
from small_link import PATIENCE_S, TOKEN, Authority, codec, patient_limits, run, serving, stream, until

PATIENT = EngineLimits(deadline_ms=0, max_frames=1000)


def accounted(service: LinkService) -> bool:
    """Every frame is answered or counted, and nothing is under way."""
    counters = service.engine.counters
    return counters.unaccounted == counters.waiting == counters.working == 0


async def talk(client: LinkClient, frames: list[bytes]) -> list[Outcome]:
    """Send frames and collect all answers."""
    for number, data in enumerate(frames):
        await client.send(number, data)
    await client.finish()
    return [answer async for answer in client.answers()]


def test_frames_go_up_and_class_maps_come_down() -> None:
    async def test() -> None:
        async with (
            serving(PATIENT) as service,
            await LinkClient.open(
                service.endpoint,
                name="car",
                fingerprint=codec().fingerprint,
            ) as client,
        ):
            assert client.welcome.codec == "tiny"
            assert client.welcome.class_names[0] == "sky"
            assert [state.name for state in service.senders.values()] == ["car"]
            answers = await talk(client, [stream(n) for n in range(8)])
            assert [a.number for a in answers] == list(range(8))
            for answer in answers:
                assert isinstance(answer, Answer)
                classes_HW = answer.classes()
                assert classes_HW.shape == (64, 96)
                counts = np.bincount(classes_HW.reshape(-1))
                assert answer.class_pixels == tuple(counts.tolist())
                assert answer.stages.total_ms > answer.stages.expert_ms > 0
            await until(lambda: service.counters.open_streams == 0)
            assert service.counters.sent == 8
            assert service.counters.undelivered == 0
            assert accounted(service)

    run(test)


def test_bad_frames_are_answered_and_the_stream_goes_on() -> None:
    async def test() -> None:
        limits = patient_limits(max_frame_bytes=5000)
        async with serving(PATIENT, limits=limits) as service, await LinkClient.open(service.endpoint) as client:
            await client.send_raw(b"\xff\xff\xff")
            await client.send_raw(b"")
            await client.send_raw(pb().FromSender(hello=pb().Hello(name="again")).SerializeToString())
            answers = await talk(client, [b"no stream", bytes(5001), stream()])
            assert sorted((a.number, str(a.reason)) for a in answers if isinstance(a, Dropped)) == [
                *((0, "damaged"), (0, "malformed"), (0, "malformed"), (0, "malformed"), (1, "too-large"))
            ]
            assert [a.number for a in answers if isinstance(a, Answer)] == [2]
            assert service.counters.malformed == 3
            assert accounted(service)

    run(test)


def test_a_message_longer_than_allowed_ends_its_stream_alone() -> None:
    async def test() -> None:
        limits = patient_limits(max_frame_bytes=5000)
        async with (
            serving(PATIENT, limits=limits) as service,
            await LinkClient.open(service.endpoint) as client,
            await LinkClient.open(service.endpoint) as other,
        ):
            await client.send_raw(bytes(200_000))
            with pytest.raises(LinkError, match="longer than one end of the link takes"):
                await anext(client.answers())
            assert len(await talk(other, [stream()])) == 1

    run(test)


@pytest.mark.parametrize("n_bytes", [5001, 70_000, 200_000])
def test_a_frame_longer_than_allowed_is_refused_alone(n_bytes: int) -> None:
    async def test() -> None:
        limits = patient_limits(max_frame_bytes=5000)
        async with serving(PATIENT, limits=limits) as service, await LinkClient.open(service.endpoint) as client:
            first, second, third = await talk(client, [stream(), bytes(n_bytes), stream()])
            refused = next(outcome for outcome in (first, second, third) if isinstance(outcome, Dropped))
            assert (refused.number, refused.reason) == (1, Reason.TOO_LARGE)
            assert service.engine.counters.answered == 2
            assert accounted(service)

    run(test)


@pytest.mark.parametrize("n_bytes", [5001, 200_000])
def test_an_original_that_does_not_fit_is_left_out(n_bytes: int) -> None:
    async def test() -> None:
        limits = patient_limits(max_frame_bytes=5000)
        async with serving(PATIENT, limits=limits) as service, await LinkClient.open(service.endpoint) as client:
            await client.send(0, stream(), original=bytes(n_bytes))
            await client.finish()
            assert [type(outcome) async for outcome in client.answers()] == [Answer]
            assert accounted(service)

    run(test)


def test_those_that_send_nothing_but_malformed_messages_are_cut_off() -> None:
    async def test() -> None:
        async with (
            serving(limits=patient_limits(max_malformed=5)) as service,
            await LinkClient.open(service.endpoint) as client,
        ):

            async def flood() -> None:
                for _ in range(1000):
                    await client.send_raw(b"\xff")
                await talk(client, [])

            with pytest.raises(LinkError, match=r"5 malformed messages|the stream to .* ended"):
                await flood()
            assert service.counters.malformed == 5

    run(test)


def test_another_codec_is_told_before_the_first_frame() -> None:
    async def test() -> None:
        async with serving() as service:
            with pytest.raises(LinkError, match=r"fingerprint 3132.*send with that one"):
                await LinkClient.open(service.endpoint, fingerprint=b"12345678")
            assert service.counters.refused == {"foreign": 1}

    run(test)


def test_the_first_message_must_be_a_hello(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with serving() as service, grpc.aio.insecure_channel(str(service.endpoint)) as channel:
            for first in (b"\xff", pb().FromSender(frame=pb().Frame()).SerializeToString()):
                call = channel.stream_stream("/gosvae.link.v1.Link/Connect")()
                await call.write(first)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call.read()
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert service.counters.refused == {"no-hello": 2}
        async with (
            serving(limits=ServiceLimits(hello_s=0.2)) as service,
            grpc.aio.insecure_channel(str(service.endpoint)) as channel,
        ):
            call = channel.stream_stream("/gosvae.link.v1.Link/Connect")()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert service.counters.refused == {"no-hello": 1}

    with caplog.at_level(logging.WARNING):
        run(test)
    assert caplog.text.count("no-hello") == 3


@pytest.mark.parametrize("number", [1, 2, 5, -1])
def test_a_coding_of_class_maps_that_is_not_known_is_told(number: int) -> None:
    """1 and 2 were PNG and runs, of gosvae 0.1."""

    async def test() -> None:
        async with serving() as service, grpc.aio.insecure_channel(str(service.endpoint)) as channel:
            call = channel.stream_stream("/gosvae.link.v1.Link/Connect")()
            await call.write(pb().FromSender(hello=pb().Hello(coding=number)).SerializeToString())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert f"coding {number} of class maps" in caught.value.details()
            assert "ask for zlib (4)" in caught.value.details()
            assert service.counters.refused == {"coding": 1}

    run(test)


def test_statistics_without_a_class_map() -> None:
    async def test() -> None:
        async with serving(PATIENT) as service, await LinkClient.open(service.endpoint, coding="none") as client:
            (answer,) = await talk(client, [stream()])
            assert isinstance(answer, Answer)
            assert answer.class_map == b""
            assert sum(answer.class_pixels) == 64 * 96
            with pytest.raises(LinkError, match="ask for zlib"):
                answer.classes()

    run(test)


def test_tokens(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with serving(token=TOKEN) as service:
            with pytest.raises(LinkError, match="no token"):
                await LinkClient.open(service.endpoint)
            for wrong in (TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "x"):
                with pytest.raises(LinkError, match="wrong token"):
                    await LinkClient.open(service.endpoint, token=wrong)
            async with await LinkClient.open(service.endpoint, token=TOKEN) as client:
                assert len(await talk(client, [stream()])) == 1
            assert service.counters.refused == {"no-token": 1, "wrong-token": 4}
            assert service.counters.streams == 1

    with caplog.at_level(logging.INFO):
        run(test)
    assert caplog.text.count("wrong-token") == 4
    assert caplog.text.count("no-token") == 1
    assert TOKEN not in caplog.text


def test_a_token_does_not_travel_unencrypted() -> None:
    async def test() -> None:
        with pytest.raises(ConfigError, match="unencrypted"):
            await LinkClient.open(Endpoint("192.0.2.1", 7777), token=TOKEN)

    run(test)


def test_tls_and_certificates_of_clients(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    tls = ServerTls(*ours.sign("server"), client_authority=ours.file)

    async def test() -> None:
        async with serving(tls=tls) as service:
            refused = "refuses this sender's certificate"
            bad = [
                (None, "uses TLS and this sender does not"),
                (ClientTls(ours.file), "asks for a certificate of this sender"),
                (ClientTls(theirs.file, *ours.sign("client")), "certificate of the receiver .* is not accepted"),
                (ClientTls(ours.file, *ours.sign("expired", (-10, -1))), refused),
                (ClientTls(ours.file, *ours.sign("early", (1, 9))), refused),
                (ClientTls(ours.file, *theirs.sign("stranger")), refused),
            ]
            for client_tls, said in bad:
                with pytest.raises(LinkError, match=said) as caught:
                    await LinkClient.open(service.endpoint, tls=client_tls)
                assert not isinstance(caught.value, UnreachableError)  # waiting would not help
            assert service.counters.streams == 0
            good = ClientTls(ours.file, *ours.sign("client"))
            async with await LinkClient.open(service.endpoint, tls=good) as client:
                assert len(await talk(client, [stream()])) == 1
        only_server = ServerTls(tls.certificate, tls.key)
        async with serving(tls=only_server, token=TOKEN) as service:
            async with await LinkClient.open(service.endpoint, tls=ClientTls(ours.file), token=TOKEN) as client:
                assert len(await talk(client, [stream()])) == 1
            with pytest.raises(LinkError, match="wrong token"):
                await LinkClient.open(service.endpoint, tls=ClientTls(ours.file), token="another-token-here")
        async with serving() as service:
            with pytest.raises(LinkError, match="does not use TLS and this sender does"):
                await LinkClient.open(service.endpoint, tls=ClientTls(ours.file))

    run(test)


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_a_proxy_of_the_environment_is_used_if_asked_for(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()[1]
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, f"http://127.0.0.1:{dead}")

    async def test() -> None:
        async with serving(PATIENT) as service:
            async with await LinkClient.open(service.endpoint) as client:
                assert len(await talk(client, [stream()])) == 1
            with pytest.raises(UnreachableError, match="no receiver"):
                await LinkClient.open(service.endpoint, proxy=True)

    run(test)


def test_health_needs_no_token_and_tells_of_the_end() -> None:
    async def test() -> None:
        async with serving(token=TOKEN) as service, grpc.aio.insecure_channel(str(service.endpoint)) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", "gosvae.link.v1.Link"):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            closing = asyncio.create_task(service.close())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()
            await closing

    run(test)


def test_closing_answers_what_was_taken() -> None:
    async def test() -> None:
        gate = Gate()
        async with serving(PATIENT, gate) as service, await LinkClient.open(service.endpoint) as client:
            for n in range(5):
                await client.send(n, stream())
            await until(lambda: service.engine.counters.received == 5)
            closing = asyncio.create_task(service.close())
            await until(lambda: all(session.closing for session in service._sessions))
            gate.opened.set()
            answers = client.answers()
            assert [(await anext(answers)).number for _ in range(5)] == [0, 1, 2, 3, 4]
            with pytest.raises(LinkError, match="closing"):
                await anext(answers)
            await closing

    run(test)


def test_clients_that_vanish_leave_nothing_behind() -> None:
    async def test() -> None:
        gate = Gate()
        async with serving(PATIENT, gate) as service:
            async with await LinkClient.open(service.endpoint) as stays:
                for _ in range(5):
                    client = await LinkClient.open(service.endpoint)
                    taken = service.engine.counters.received + 5
                    for n in range(10):
                        await client.send(n, stream())
                    await until(lambda taken=taken: service.engine.counters.received >= taken)  # type: ignore[misc]
                    await client.close()  # in the middle of it all
                await until(lambda: service.counters.open_streams == 1)
                gate.opened.set()
                assert len(await talk(stays, [stream()] * 3)) == 3
            await until(lambda: accounted(service))
            counters = service.engine.counters
            assert counters.dropped[Reason.GONE] > 0
            assert list(service.senders) == []

    run(test)


def test_slow_readers_lose_answers_and_hold_up_nobody() -> None:
    async def test() -> None:
        limits = patient_limits(max_pending_frames=8)
        gate = Gate()
        gate.opened.set()
        async with serving(EngineLimits(deadline_ms=0), gate, limits=limits) as service:
            async with await LinkClient.open(service.endpoint, name="x" * 60) as slow:
                await slow.send(0, stream())
                # Refusals are long enough to fill what HTTP/2 buffers; none is ever read.
                garbage = pb().FromSender(frame=pb().Frame(number=1, stream=bytes(2**20 + 1))).SerializeToString()

                async def flood() -> None:
                    for _ in range(4000):
                        await slow.send_raw(garbage)

                flooding = asyncio.create_task(flood())
                async with await LinkClient.open(service.endpoint) as quick:
                    for n in range(20):
                        await quick.send(n, stream())
                        assert isinstance(await anext(quick.answers()), Answer)
                assert max(len(session.outbox) for session in service._sessions) <= 16
                flooding.cancel()
                await asyncio.gather(flooding, return_exceptions=True)
            await until(lambda: accounted(service) and service.counters.open_streams == 0)

    run(test)


def test_a_reader_that_stands_still_is_cut_off() -> None:
    async def test() -> None:
        limits = patient_limits(max_pending_frames=4, write_s=0.3)
        async with serving(PATIENT, limits=limits) as service:
            options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
            async with grpc.aio.insecure_channel(str(service.endpoint), options=options) as channel:
                call = channel.stream_stream("/gosvae.link.v1.Link/Connect")()
                await call.write(pb().FromSender(hello=pb().Hello()).SerializeToString())
                frame = pb().FromSender(frame=pb().Frame(stream=stream())).SerializeToString()

                async def flood() -> None:
                    while True:
                        await call.write(frame)

                flooding = asyncio.create_task(flood())
                await until(lambda: "slow-reader" in service.counters.refused)
                await until(lambda: accounted(service) and not service.senders)
                received = service.engine.counters.received
                await asyncio.sleep(0.1)
                assert service.engine.counters.received == received  # no more is read
                flooding.cancel()
                await asyncio.gather(flooding, return_exceptions=True)
            await until(lambda: service.counters.open_streams == 0)
            assert service.counters.undelivered > 0

    run(test)


def test_blocking_makes_the_sender_wait() -> None:
    async def test() -> None:
        gate = Gate()
        limits = patient_limits(max_pending_frames=4)
        engine = EngineLimits(policy="block", max_frames=2, deadline_ms=0)
        async with serving(engine, gate, limits=limits) as service, await LinkClient.open(service.endpoint) as client:
            talking = asyncio.create_task(talk(client, [stream()] * 40))
            await until(lambda: service.engine.counters.received >= 3)
            await asyncio.sleep(0.1)
            assert service.engine.counters.received <= 4
            gate.opened.set()
            answers = await talking
            assert [type(a) for a in answers] == [Answer] * 40
            assert accounted(service)

    run(test)


def test_every_frame_of_a_patient_sender_is_answered_and_others_may_be_stale() -> None:
    """The deadline is over before any frame has its turn, and the queue is shorter than what is sent."""

    async def test() -> None:
        limits, engine = patient_limits(max_pending_frames=4), EngineLimits(max_frames=4, deadline_ms=1e-6)
        async with serving(engine, limits=limits) as service:
            async with await LinkClient.open(service.endpoint, patient=True) as client:
                answers = await talk(client, [stream(n) for n in range(12)])
            assert [type(answer) for answer in answers] == [Answer] * 12
            async with await LinkClient.open(service.endpoint) as client:
                assert reasons(await talk(client, [stream()])) == [Reason.STALE]
            assert accounted(service)

    run(test)


def test_two_hundred_connects() -> None:
    async def test() -> None:
        async with serving(PATIENT) as service:

            async def visit(n: int) -> int:
                async with await LinkClient.open(service.endpoint) as client:
                    if n % 3 == 0:
                        return len(await talk(client, [stream()]))
                    if n % 3 == 1:
                        await client.send(0, b"garbage")
                return 0

            answers = 0
            for begin in range(0, 200, 20):
                answers += sum(await asyncio.gather(*[visit(n) for n in range(begin, begin + 20)]))
            assert answers == 67
            await until(lambda: service.counters.open_streams == 0 and accounted(service))
            assert service.counters.streams == 200

    run(test)


def test_streams_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with serving(limits=patient_limits(max_streams=3)) as service:
            async with AsyncExitStack() as clients:
                for _ in range(3):
                    await clients.enter_async_context(await LinkClient.open(service.endpoint))
                with pytest.raises(LinkError, match="3 streams are open"):
                    await LinkClient.open(service.endpoint)
            await until(lambda: service.counters.open_streams == 0)
            await (await LinkClient.open(service.endpoint)).close()

    with caplog.at_level(logging.WARNING):
        run(test)
    assert "too-many-streams" in caplog.text


def test_fifty_senders_at_once() -> None:
    async def test() -> None:
        async with serving(EngineLimits(max_frames=16, deadline_ms=1000 * PATIENCE_S)) as service:

            async def sender(n: int) -> tuple[int, int]:
                async with await LinkClient.open(service.endpoint, name=f"car {n}") as client:
                    answers = await talk(client, [stream(n + k) for k in range(6)])
                    return sum(isinstance(a, Answer) for a in answers), sum(isinstance(a, Dropped) for a in answers)

            totals = await asyncio.gather(*[sender(n) for n in range(50)])
            results, refusals = sum(t[0] for t in totals), sum(t[1] for t in totals)
            counters = service.engine.counters
            assert results + refusals == counters.received == 300
            assert results == counters.answered > 0
            assert refusals == sum(counters.dropped.values())
            assert accounted(service)

    run(test)


def test_noise_in_messages() -> None:
    """Garbage inside valid messages, and garbage instead of them; benchmarks/link.py sends 100,000."""
    numbers = random.Random(4)

    def message() -> bytes:
        kind = numbers.randrange(4)
        good = bytearray(stream(numbers.randrange(4)))
        if kind == 0:
            return numbers.randbytes(numbers.randrange(60))
        if kind == 1:
            good = bytearray(numbers.randbytes(numbers.randrange(100)))
        elif kind == 2:
            good[numbers.randrange(len(good))] ^= 1 << numbers.randrange(8)
        data = (
            pb().FromSender(frame=pb().Frame(number=numbers.randrange(2**63), stream=bytes(good))).SerializeToString()
        )
        if kind == 3:
            data = data[: numbers.randrange(len(data))]
        return bytes(data)

    async def test() -> None:
        async with (
            serving(PATIENT, limits=patient_limits(max_malformed=10**6)) as service,
            await LinkClient.open(service.endpoint) as client,
        ):
            answers = 0

            async def read() -> None:
                nonlocal answers
                async for _ in client.answers():
                    answers += 1

            reading = asyncio.create_task(read())
            for _ in range(600):
                await client.send_raw(message())
            await client.finish()
            await reading
            assert answers + service.counters.undelivered == 600
            assert service.counters.malformed > 100
            assert accounted(service)
        assert service.engine.counters.dropped[Reason.FAILED] == 0

    run(test)


def test_what_listens_may_be_something_else() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            server = grpc.aio.server()
            stack.push_async_callback(server.stop, None)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            with pytest.raises(LinkError, match="no gosvae receiver"):
                await LinkClient.open(Endpoint("127.0.0.1", port))
            service = await stack.enter_async_context(serving())
            with pytest.raises(LinkError, match="cannot listen"):
                await LinkService(service.engine, Endpoint("127.0.0.1", port)).start()
            await server.stop(None)
            with pytest.raises(LinkError, match="no receiver"):
                await LinkClient.open(Endpoint("127.0.0.1", port))

    run(test)


class EndedCall:
    """A call of gRPC whose status is noted by hand."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[object], None]] = []
        self._status = grpc.StatusCode.UNKNOWN, ""

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        self._callbacks.append(callback)

    def note(self, code: grpc.StatusCode, details: str) -> None:
        self._status = code, details
        for callback in self._callbacks:
            callback(self)

    async def code(self) -> grpc.StatusCode:
        return self._status[0]

    async def details(self) -> str:
        return self._status[1]


THEIRS = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
FAILED_WRITE = (grpc.StatusCode.INTERNAL, "Internal error from Core")


@pytest.mark.parametrize("order", [(THEIRS,), (THEIRS, FAILED_WRITE), (FAILED_WRITE, THEIRS)])
def test_a_failed_write_does_not_hide_why_the_receiver_ended_the_call(
    order: tuple[tuple[grpc.StatusCode, str], ...],
) -> None:
    async def test() -> None:
        call = EndedCall()
        ending = _Ending(call)
        call.note(*order[0])
        status = asyncio.create_task(ending.status())
        await asyncio.sleep(0)
        for later in order[1:]:
            call.note(*later)
        assert await status == THEIRS

    run(test)


NAMES = [("car", "car"), ("", "unnamed"), ("a\x00\x1b[2Jb\n", "a[2Jb"), ("y" * 99, "y" * 64)]


@pytest.mark.parametrize(("name", "shown"), NAMES)
def test_names_are_fit_to_be_shown(name: str, shown: str) -> None:
    assert printable(name) == shown
