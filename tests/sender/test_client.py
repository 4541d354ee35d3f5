"""The sender's client when its stream ends: one clear line, whatever gRPC reports and whenever it does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from gosvae.errors import LinkError
from gosvae.protocol.messages import METHOD, SERVICE, pb
from gosvae.protocol.security import Endpoint
from gosvae.receiver.service import LinkService
from gosvae.sender.client import LinkClient
from small_link import HOST, run, serving, stream

Code = grpc.StatusCode
BROKEN = [
    (Code.UNAVAILABLE, "Stream removed (sendmsg: Broken pipe (32))"),
    (Code.UNAVAILABLE, "recvmsg:Connection reset by peer"),
    (Code.UNAVAILABLE, "the receiver is closing"),
    (Code.UNKNOWN, "Stream removed"),
    (Code.INTERNAL, "Received RST_STREAM with error code 2"),
    (Code.CANCELLED, "RST_STREAM with error code 8"),
    (Code.ABORTED, ""),
]
"""Statuses with which a receiver that closes, or a connection that breaks, was seen or can be seen by a sender."""


@asynccontextmanager
async def ending_with(code: grpc.StatusCode, details: str, *, welcome: bool) -> AsyncIterator[Endpoint]:
    """A server that ends every call with a status, before or after its welcome."""

    async def connect(_: Any, context: Any) -> None:
        await context.read()
        if welcome:
            message = pb().FromReceiver(welcome=pb().Welcome(max_pending_frames=4))
            await context.write(message.SerializeToString())
        await context.abort(code, details)

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(connect)
    method = METHOD.rpartition("/")[2]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {method: handler}),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        yield Endpoint(HOST, port)
    finally:
        await server.stop(None)


async def line_of(work: Awaitable[object]) -> str:
    """Return the line of the `LinkError` that the work raises."""
    with pytest.raises(LinkError) as caught:
        await work
    line = str(caught.value)
    assert "\n" not in line
    return line


async def read_all(client: LinkClient) -> None:
    async for _ in client.answers():
        pass


@pytest.mark.parametrize(("code", "details"), BROKEN)
def test_every_way_in_which_a_stream_breaks_has_the_same_line(code: grpc.StatusCode, details: str) -> None:
    async def test() -> None:
        async with ending_with(code, details, welcome=True) as endpoint:
            expected = f"the stream to {endpoint} ended: the receiver is closing or the connection broke; connect again"
            async with await LinkClient.open(endpoint) as client:
                line = await line_of(read_all(client))
                assert line.partition(" [")[0] == expected
                assert (await line_of(client.send(0, b"x"))).partition(" [")[0] == expected
                await client.finish()  # there is nobody to tell any more

    run(test)


@pytest.mark.parametrize(("code", "details"), BROKEN)
def test_every_way_in_which_a_connection_fails_has_the_same_line(code: grpc.StatusCode, details: str) -> None:
    async def test() -> None:
        async with ending_with(code, details, welcome=False) as endpoint:
            line = await line_of(LinkClient.open(endpoint))
            assert line.startswith(f"no receiver at {endpoint}: check that one listens there")

    run(test)


REFUSED = [
    (Code.UNAUTHENTICATED, "wrong token", "refuses: wrong token; give its token"),
    (Code.FAILED_PRECONDITION, "send with that one", "refuses: send with that one"),
    (Code.PERMISSION_DENIED, "", "refuses: permission_denied"),
    (Code.RESOURCE_EXHAUSTED, "5 streams are open", "refuses: 5 streams are open"),
    (Code.UNIMPLEMENTED, "Method not found!", "is no gosvae receiver"),
]


@pytest.mark.parametrize(("code", "details", "said"), REFUSED)
def test_refusals_are_told_in_the_words_of_the_receiver(code: grpc.StatusCode, details: str, said: str) -> None:
    async def test() -> None:
        async with ending_with(code, details, welcome=False) as endpoint:
            line = await line_of(LinkClient.open(endpoint))
            assert str(endpoint) in line
            assert line.endswith(said)

    run(test)


@asynccontextmanager
async def cut_on_demand(service: LinkService) -> AsyncIterator[tuple[Endpoint, Callable[[], None]]]:
    """The service behind a connection that a call of the function cuts."""
    writers: list[asyncio.StreamWriter] = []
    copies: list[asyncio.Task[None]] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(service.endpoint.host, service.endpoint.port)
        writers.extend((writer, up_writer))
        copies.extend((asyncio.create_task(copy(reader, up_writer)), asyncio.create_task(copy(up_reader, writer))))

    def cut() -> None:
        for writer in writers:
            writer.transport.abort()

    proxy = await asyncio.start_server(connected, HOST, 0)
    try:
        yield Endpoint(HOST, proxy.sockets[0].getsockname()[1]), cut
    finally:
        proxy.close()
        cut()
        await asyncio.gather(*copies)
        await proxy.wait_closed()


@pytest.mark.parametrize("waits_for", ["answers", "sending"])
def test_a_connection_that_is_cut(waits_for: str) -> None:
    async def test() -> None:
        async with serving() as service, cut_on_demand(service) as (endpoint, cut):
            async with await LinkClient.open(endpoint) as client:
                await client.send(0, stream())
                assert (await anext(client.answers())).number == 0

                async def send_for_ever() -> None:
                    while True:
                        await client.send(1, stream())

                waiting = asyncio.create_task(line_of(read_all(client) if waits_for == "answers" else send_for_ever()))
                await asyncio.sleep(0)
                cut()
                line = await waiting
            assert line.startswith(f"the stream to {endpoint} ended: the receiver is closing or the connection broke")

    run(test)


def test_a_message_that_cannot_be_read() -> None:
    async def test() -> None:
        async def connect(_: Any, context: Any) -> None:
            await context.read()
            await context.write(b"\xff\xff")

        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(connect)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Connect": handler}),))
        port = server.add_insecure_port(f"{HOST}:0")
        await server.start()
        try:
            assert "no gosvae receiver" in await line_of(LinkClient.open(Endpoint(HOST, port)))
        finally:
            await server.stop(None)

    run(test)
