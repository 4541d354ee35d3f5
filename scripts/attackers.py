"""What `attack.py` runs: a receiver, good senders, and the attackers, which are processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np

from gosvae.codecs.registry import load_codec
from gosvae.datasets.streets import Streets
from gosvae.errors import LinkError
from gosvae.packets import RepairPacket, packetise
from gosvae.packets.protection import LEAST_SYMBOL_BYTES, Group, Run
from gosvae.protocol.messages import METHOD, import_grpc, pb
from gosvae.protocol.security import Endpoint
from gosvae.sender.client import LinkClient

TOKEN = "a-token-of-the-attack-script"
STREAM_ID = 0x600D
"""Stream id of the good sender over UDP, which attackers know."""


class Places:
    """Addresses of a receiver, and the process."""

    def __init__(self, grpc: str, page: str, udp: str, pid: int = 0) -> None:
        self.grpc, self.page, self.udp, self.pid = (Endpoint.parse(grpc), page, Endpoint.parse(udp), pid)
        self.next_frame = 0

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the receiver."""
        request = Request(f"http://{self.page}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        with urlopen(request, timeout=60) as answer:
            lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def descriptors(self) -> int:
        """Return the number of open descriptors of the receiver."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def memory_mib(self) -> float:
        """Return the resident memory of the receiver."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def receiver(codec: str) -> Iterator[Places]:
    """Run a receiver on free ports of this machine."""
    where = ["--grpc", "127.0.0.1:0", "--page", "127.0.0.1:0", "--udp", "127.0.0.1:0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gosvae", "receive", "--codec", codec, "--deadline-ms", "0", *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "GOSVAE_TOKEN": TOKEN},
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Ctrl-C"):
            break
    found = [re.search(rf"^{what}\s+(?:http://)?([\d.]+:\d+)", said, re.MULTILINE) for what in ("gRPC", "page", "UDP")]
    try:
        grpc, page, udp = (match[1] for match in found if match)
        yield Places(grpc, page, udp, process.pid)
    finally:
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
            print(f"the receiver ended {time.monotonic() - began_s:.1f} s after SIGTERM", flush=True)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def picture(codec: str, height: int, width: int, *, grey: bool = False) -> bytes:
    """Return the stream of a picture: a scene, or one of a single grey, which takes few bytes."""
    image = np.full((height, width, 3), 128, np.uint8)
    if not grey:
        image = Streets(1, seed=7, height=height, width=width)[0].image_uint8_HW3
    return load_codec(codec).compress(image)


# --- the attacks: each runs until it is ended, in a process of its own ------------------------------------------------


async def attack_large(places: Places, codec: str) -> None:
    """15 senders with pictures of one grey, as large as the receiver takes, and one with larger ones."""
    allowed, beyond = picture(codec, 1440, 1440, grey=True), picture(codec, 2048, 2048, grey=True)

    async def flood(stream: bytes) -> None:
        async with await LinkClient.open(places.grpc, token=TOKEN, timeout_s=60) as client:
            reading = asyncio.create_task(_read(client))
            for number in range(10**9):
                await client.send(number, stream)
                await asyncio.sleep(0.5)
            await reading

    await asyncio.gather(*[flood(allowed) for _ in range(15)], flood(beyond))


async def _read(client: LinkClient) -> None:
    async for _ in client.answers():
        pass


async def attack_never_read(places: Places, codec: str) -> None:
    """64 clients that send frames to be refused, and read nothing."""
    del codec
    grpc = import_grpc()
    frame = pb().FromSender(frame=pb().Frame(stream=b"no stream")).SerializeToString()

    async def mute(number: int) -> None:
        options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0), ("attack", number)]
        while True:
            with contextlib.suppress(Exception):
                async with grpc.aio.insecure_channel(str(places.grpc), options=options) as channel:
                    call = channel.stream_stream(METHOD)(metadata=[("authorization", f"Bearer {TOKEN}")])
                    await call.write(pb().FromSender(hello=pb().Hello()).SerializeToString())
                    while True:
                        await call.write(frame)
                        await asyncio.sleep(0.1)
            await asyncio.sleep(1.0)

    await asyncio.gather(*[mute(number) for number in range(64)])


async def _connections(host: str, port: int, count: int, first: bytes, then: bytes, every_s: float) -> None:
    """Hold connections open, send some bytes to each at intervals, and replace those that end."""

    async def hold() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    writer.write(first)
                    while not reader.at_eof():
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(reader.read(4096), every_s)
                        writer.write(then)
                        await writer.drain()
                finally:
                    writer.close()
            await asyncio.sleep(0.5)

    await asyncio.gather(*[hold() for _ in range(count)])


async def attack_connections(places: Places, codec: str) -> None:
    """1,200 connections that begin HTTP/2 and are silent."""
    del codec
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
    await _connections(places.grpc.host, places.grpc.port, 1200, begin, b"", 60.0)


async def attack_slow_heads(places: Places, codec: str) -> None:
    """200 connections to the page that send a byte each second."""
    del codec
    host, _, port = places.page.rpartition(":")
    await _connections(host, int(port), 200, b"GET / HTTP/1.1\r\nX: ", b"x", 1.0)


async def attack_wrong_tokens(places: Places, codec: str) -> None:
    """20 clients that guess the token."""
    del codec

    async def guess() -> None:
        while True:
            with contextlib.suppress(LinkError):
                await LinkClient.open(places.grpc, token="x" * 32, timeout_s=30)

    await asyncio.gather(*[guess() for _ in range(20)])


async def _datagrams(places: Places, source: AsyncIterator[bytes], per_s: float) -> None:
    """Send datagrams at a rate."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=(places.udp.host, places.udp.port)
    )
    async for data in source:
        transport.sendto(data)
        await asyncio.sleep(1 / per_s)


async def attack_numbers(places: Places, codec: str) -> None:
    """Packets with the stream id of the good sender and numbers from anywhere, 10 a second."""
    stream = picture(codec, 64, 64)

    async def forged() -> AsyncIterator[bytes]:
        for n in range(10**9):
            yield packetise(stream, stream_id=STREAM_ID, frame=(30_011 * n) % 2**16)[0]

    await _datagrams(places, forged(), 10)


async def attack_repair(places: Places, codec: str) -> None:
    """45 KB a second of forged repair packets for groups of 255, each with a packet that makes it worth an attempt."""
    stream = picture(codec, 64, 64)

    async def forged() -> AsyncIterator[bytes]:
        for n in range(10**9):
            group = Group(n % 2**32, 0, (Run(0, 0, 255),), LEAST_SYMBOL_BYTES)
            data = bytearray(packetise(stream, stream_id=n % 2**32, frame=0)[0][:-4])
            data[10:12] = (255).to_bytes(2, "big")
            yield bytes(data) + zlib.crc32(data).to_bytes(4, "big")
            for k in range(255):
                yield RepairPacket(group, 255 + k, bytes([k]) * LEAST_SYMBOL_BYTES).to_bytes()

    await _datagrams(places, forged(), 45_000 / 56)


ATTACKS: dict[str, Callable[[Places, str], Awaitable[None]]] = {
    "large": attack_large,
    "never-read": attack_never_read,
    "connections": attack_connections,
    "slow-heads": attack_slow_heads,
    "wrong-tokens": attack_wrong_tokens,
    "numbers": attack_numbers,
    "repair": attack_repair,
}
