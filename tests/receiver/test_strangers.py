"""What strangers may take of a receiver: connections, slots, lines of its log, and guesses of its token."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from unittest.mock import patch

import grpc
import pytest

from gosvae.errors import ConfigError, LinkError
from gosvae.protocol.messages import METHOD, pb
from gosvae.receiver import connections, service, strangers
from gosvae.receiver.connections import Address, Watch, address_of, end, plain_host, raise_descriptor_limit
from gosvae.receiver.engine import EngineLimits
from gosvae.receiver.limits import ServiceLimits
from gosvae.receiver.service import LinkService
from gosvae.receiver.strangers import LINES, LINES_OF_SOURCE, MOST_DELAY_S, MOST_SOURCES, Backoff, LimitedLog
from gosvae.sender.client import LinkClient, UnreachableError
from small_link import HOST, TOKEN, patient_limits, run, serving, stream, until

LINUX = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes(3) + b"\x04" + bytes(5)
PATIENT = EngineLimits(deadline_ms=0, max_frames=1000)


def open_connections(listening: LinkService) -> int:
    return sum(1 for _ in connections._sockets(listening.endpoint.port))


@LINUX
def test_who_never_reads_loses_its_slot_and_its_connection() -> None:
    """The client is still there: it sends and keeps its connection open, and reads nothing."""

    async def test() -> None:
        limits = patient_limits(max_pending_frames=4, write_s=0.2, farewell_s=0.2, idle_s=600.0)
        async with serving(PATIENT, limits=limits) as listening:
            options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
            async with grpc.aio.insecure_channel(str(listening.endpoint), options=options) as channel:
                call = channel.stream_stream(METHOD)()
                await call.write(pb().FromSender(hello=pb().Hello()).SerializeToString())
                frame = pb().FromSender(frame=pb().Frame(stream=stream())).SerializeToString()

                async def flood() -> None:
                    while True:
                        await call.write(frame)

                flooding = asyncio.create_task(flood())
                await until(lambda: "slow-reader" in listening.counters.refused)
                await until(lambda: listening.counters.open_streams == 0)
                await until(lambda: open_connections(listening) == 0)
                await asyncio.wait((flooding,))
                assert isinstance(flooding.exception(), grpc.aio.AioRpcError | asyncio.InvalidStateError)

    run(test)


@LINUX
def test_a_source_has_so_many_connections_and_the_newest_idle_ones_go() -> None:
    """Each says that it speaks HTTP/2, and nothing more."""

    async def test() -> None:
        limits = patient_limits(max_per_source=3, idle_s=600.0)
        with patch.object(service, "SWEEP_S", 0.01), ExitStack() as stack:
            async with serving(PATIENT, limits=limits) as listening:
                place = (listening.endpoint.host, listening.endpoint.port)
                async with await LinkClient.open(listening.endpoint) as client:
                    raw = [stack.enter_context(socket.create_connection(place, timeout=60)) for _ in range(20)]
                    for one in raw:
                        one.sendall(PREFACE + SETTINGS)
                    await until(lambda: listening.counters.refused.get("too-many-connections", 0) >= 18)
                    await until(lambda: open_connections(listening) == 3)
                    await client.send(0, stream())
                    await client.finish()
                    assert [answer.number async for answer in client.answers()] == [0]

    run(test)


def test_the_whole_service_has_so_many_connections() -> None:
    async def test() -> None:
        with ExitStack() as stack:
            async with serving(PATIENT, limits=patient_limits(max_connections=4)) as listening:
                place = (listening.endpoint.host, listening.endpoint.port)
                raw = [stack.enter_context(socket.create_connection(place, timeout=60)) for _ in range(4)]
                for one in raw:
                    one.sendall(PREFACE + SETTINGS)
                    await asyncio.to_thread(one.recv, 1)  # the settings of the server: the connection counts
                late = stack.enter_context(socket.create_connection(place, timeout=60))
                assert await asyncio.to_thread(_ended, late)

    run(test)


def _ended(raw: socket.socket) -> bool:
    try:
        return raw.recv(1) == b""
    except ConnectionError:
        return True


def test_connections_without_a_call_end() -> None:
    async def test() -> None:
        limits = patient_limits(idle_s=0.2)
        with ExitStack() as stack:
            async with serving(PATIENT, limits=limits) as listening:
                place = (listening.endpoint.host, listening.endpoint.port)
                async with await LinkClient.open(listening.endpoint) as client:
                    raw = stack.enter_context(socket.create_connection(place, timeout=60))
                    raw.sendall(PREFACE + SETTINGS)

                    def all_of() -> bytes:
                        data = b""
                        try:
                            while part := raw.recv(4096):
                                data += part
                                if b"\x06\x00" in part:  # a ping of the server: who answers it is alive, and idle
                                    raw.sendall(SETTINGS)
                        except ConnectionError:
                            pass
                        return data

                    await asyncio.to_thread(all_of)
                    await client.send(0, stream())
                    await client.finish()
                    assert [answer.number async for answer in client.answers()] == [0]

    run(test)


def test_connections_have_an_age() -> None:
    async def test() -> None:
        async with serving(PATIENT, limits=patient_limits(age_s=0.2, grace_s=0.1)) as listening:
            async with await LinkClient.open(listening.endpoint) as client:
                with pytest.raises(UnreachableError, match="connect again"):
                    await anext(client.answers())
            async with await LinkClient.open(listening.endpoint) as again:
                await again.close()

    run(test)


def test_one_source_does_not_take_all_streams() -> None:
    async def test() -> None:
        async with serving(limits=patient_limits(max_per_source=2)) as listening, AsyncExitStack() as clients:
            for _ in range(2):
                await clients.enter_async_context(await LinkClient.open(listening.endpoint))
            with pytest.raises(LinkError, match=rf"2 streams of {HOST} are open"):
                await LinkClient.open(listening.endpoint)

    run(test)


def test_a_silent_stream_gives_way_when_all_are_open() -> None:
    async def test() -> None:
        limits = patient_limits(max_streams=2, stale_s=60.0)
        async with serving(PATIENT, limits=limits) as listening:
            silent = await LinkClient.open(listening.endpoint, name="silent")
            async with silent, await LinkClient.open(listening.endpoint, name="busy") as busy:
                for session in listening._sessions:
                    session.used_s -= 61.0
                await busy.send(0, stream())
                await anext(busy.answers())
                async with await LinkClient.open(listening.endpoint, name="new") as new:
                    await new.send(0, stream())
                    await anext(new.answers())
                    with pytest.raises(LinkError, match="this one had no frame"):
                        await anext(silent.answers())
                    assert listening.counters.refused == {"gave-way": 1}
                    with pytest.raises(LinkError, match="2 streams are open"):
                        await LinkClient.open(listening.endpoint)

    run(test)


def test_wrong_tokens_wait_longer_and_the_right_one_does_not(caplog: pytest.LogCaptureFixture) -> None:
    waited_s: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waited_s.append(seconds)
        await real_sleep(0)

    async def test() -> None:
        async with serving(token=TOKEN) as listening:
            with patch.object(service.asyncio, "sleep", sleep):
                for _ in range(10):
                    with pytest.raises(LinkError, match="wrong token"):
                        await LinkClient.open(listening.endpoint, token="x" * 20)
                waits = [seconds for seconds in waited_s if seconds != service.SWEEP_S]
                assert waits == [0.0, *(0.1 * 2**n for n in range(6)), MOST_DELAY_S, MOST_DELAY_S, MOST_DELAY_S]
                waited_s.clear()
                await (await LinkClient.open(listening.endpoint, token=TOKEN)).close()
                assert set(waited_s) <= {service.SWEEP_S}
            assert listening.counters.refused == {"wrong-token": 10}

    with caplog.at_level(logging.WARNING):
        run(test)
    assert caplog.text.count("wrong-token") == LINES_OF_SOURCE


def test_the_log_holds_a_few_lines_of_each_source(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    log = LimitedLog(logging.getLogger("test"), clock=lambda: now_s)

    def lines() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            log.refused("192.0.2.1", "wrong-token")
        said = lines()
        assert said[:4] == ["refused 192.0.2.1: wrong-token"] * 4
        assert said[4:] == ["refused 192.0.2.1: wrong-token; further lines are left out for a minute"]
        log.refused("192.0.2.2", "no-hello")
        assert lines() == ["refused 192.0.2.2: no-hello"]
        now_s = 61.0
        log.refused("192.0.2.1", "wrong-token")
        assert lines() == ["refused 192.0.2.1: wrong-token (995 more before that)"]
        for n in range(10_000):
            log.refused(f"source {n}", "no-token")
        assert len(lines()) == LINES - 1
        assert len(log._of_source._counts) == MOST_SOURCES


def test_backoff_forgets_after_a_while_and_does_not_pile_up() -> None:
    now_s = 0.0
    backoff = Backoff(clock=lambda: now_s)
    assert [backoff.delay_s("a") for _ in range(3)] == [0.0, 0.1, 0.2]
    assert backoff.delay_s("b") == 0.0
    for _ in range(100):
        backoff.delay_s("a")
    assert backoff.delay_s("a") == MOST_DELAY_S
    backoff.waiting = strangers.MOST_WAITING
    assert backoff.delay_s("a") == 0.0
    backoff.waiting, now_s = 0, 61.0
    assert backoff.delay_s("a") == 0.0


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:5000", Address("192.0.2.1", 5000)),
        ("ipv6:%5B::1%5D:77", Address("::1", 77)),
        ("ipv6:[::ffff:192.0.2.1]:5000", Address("192.0.2.1", 5000)),
        ("ipv6:[fe80::1%25eth0]:5000", Address("fe80::1", 5000)),
        ("unix:", None),
        ("", None),
        ("ipv4:nowhere", None),
    ],
)
def test_addresses_as_grpc_writes_them(peer: str, address: Address | None) -> None:
    assert address_of(peer) == address


@LINUX
def test_connections_of_a_port_are_found_and_ended() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0)))
        port = listener.getsockname()[1]
        clients, servers = [], []
        for _ in range(3):
            clients.append(stack.enter_context(socket.create_connection((HOST, port), timeout=60)))
            servers.append(stack.enter_context(listener.accept()[0]))
        first, second, third = (Address(HOST, client.getsockname()[1]) for client in clients)
        watch = Watch(port, most=2)
        assert watch.sweep(busy={first, third}) == {HOST: 1}
        assert clients[1].recv(1) == b"", "the others are busy"
        clients[0].sendall(b"x")
        assert servers[0].recv(1) == b"x"
        servers[1].close()
        assert watch.sweep(busy=()) == {}
        end(port, {first, second})
        assert clients[0].recv(1) == b""
        clients[2].sendall(b"x")
        assert servers[2].recv(1) == b"x"


def test_descriptors_are_raised_as_far_as_allowed() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = min(512, soft)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
        assert LinkService._max_connections(_Limited()) == lower - service.SPARE_DESCRIPTORS  # type: ignore[arg-type]
        raise_descriptor_limit()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert raised == min(hard, connections.MOST_DESCRIPTORS) if hard != resource.RLIM_INFINITY else raised > lower
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _Limited:
    limits = ServiceLimits()


def test_limits_that_let_nobody_in_are_refused() -> None:
    for name in ("max_connections", "max_per_source", "max_streams"):
        with pytest.raises(ConfigError, match="start at 1"):
            ServiceLimits(**{name: 0})
    assert plain_host("no address") == "no address"
