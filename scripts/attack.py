#!/usr/bin/env python3
"""Attack a receiver on this machine and print the latency of a good sender before and under each attack.

scripts/attack.py
scripts/attack.py --attacks large connections --frames 200 --json attacks.json
scripts/attack.py --soak-seconds 1800

The receiver, the good senders and the attackers are processes of their own; attackers have the lowest priority, so that
what is measured is the receiver and not the machine. Every attack is bounded and ends with this script. The script
exits with 1 if the 99th percentile is more than doubled, or if descriptors or memory grow in a soak.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
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
from gosvae.protocol.frames import Answer
from gosvae.protocol.messages import METHOD, import_grpc, pb
from gosvae.protocol.security import Endpoint
from gosvae.provenance import hardware
from gosvae.sender.client import LinkClient
from gosvae.sender.udp import UdpSender

CODEC = "gosvae-variable-camvid"
TOKEN = "a-token-of-the-attack-script"
STREAM_ID = 0x600D
"""Stream id of the good sender over UDP, which attackers know."""
MOST_GROWTH = 1.2
"""Greatest growth of descriptors and memory in a soak, from the second quarter to the last."""


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


async def good_sender(places: Places, stream: bytes, frames: int) -> list[float]:
    """Send frames one after the other, with a pause, and return the times in ms until their answers.

    Raises:
        LinkError: a frame was not answered.
    """
    times_ms = []
    async with await LinkClient.open(places.grpc, name="good", token=TOKEN, timeout_s=60) as client:
        answers = client.answers()
        for number in range(frames):
            began_s = time.perf_counter()
            await client.send(number, stream, deadline_ms=60_000)
            answer = await anext(answers)
            if not isinstance(answer, Answer):
                raise LinkError(f"frame {number} was refused: {answer}")
            times_ms.append(1000 * (time.perf_counter() - began_s))
            await asyncio.sleep(0.05)
    return times_ms


async def good_udp(places: Places, stream: bytes, frames: int) -> None:
    """Send small frames over UDP, five a second."""
    options = {"stream_id": STREAM_ID, "first_frame": places.next_frame}
    places.next_frame += frames
    async with await UdpSender.open(places.udp.host, places.udp.port, **options) as sender:
        for _ in range(frames):
            await sender.send(stream)
            await asyncio.sleep(0.2)


def answered_udp(metrics: dict[str, float]) -> float:
    """Return the number of frames over UDP that came whole."""
    return metrics.get('gosvae_udp_events_total{event="complete",layer="packets"}', 0.0)


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


@contextlib.contextmanager
def attacked(name: str, places: Places, codec: str) -> Iterator[subprocess.Popen[bytes]]:
    """Attack a receiver within the context, from a process of the lowest priority."""
    where = ["--grpc", str(places.grpc), "--page", places.page, "--udp", str(places.udp)]
    command = ["nice", "-n", "19", sys.executable, __file__, "--attack", name, "--codec", codec, *where]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def percentile(times_ms: list[float], percent: float) -> float:
    """Return a percentile, rounded to 0.1 ms."""
    return round(float(np.percentile(times_ms, percent)), 1)


async def measure(places: Places, stream: bytes, small: bytes, frames: int) -> dict[str, float]:
    """Return what good senders over gRPC and UDP get, and how long the receiver's health check takes at most."""
    before = answered_udp(places.metrics())
    udp = asyncio.create_task(good_udp(places, small, frames))
    health_ms = [0.0]

    async def check() -> None:
        while True:
            began_s = time.perf_counter()
            await asyncio.to_thread(lambda: urlopen(f"http://{places.page}/health", timeout=60).read())
            health_ms.append(1000 * (time.perf_counter() - began_s))
            await asyncio.sleep(1.0)

    checking = asyncio.create_task(check())
    times_ms = await good_sender(places, stream, frames)
    await udp
    checking.cancel()
    await asyncio.gather(checking, return_exceptions=True)
    await asyncio.sleep(1.0)
    whole = (answered_udp(places.metrics()) - before) / frames
    return {
        "median_ms": percentile(times_ms, 50),
        "p99_ms": percentile(times_ms, 99),
        "udp_whole": round(whole, 3),
        "health_ms": round(max(health_ms), 1),
    }


def run_attacks(options: argparse.Namespace, places: Places, stream: bytes) -> bool:
    """Measure before and under each attack, print a table, and return whether the promise is kept."""
    small = picture(options.codec, 64, 64)
    asyncio.run(good_sender(places, stream, 5))
    results: dict[str, dict[str, dict[str, float]]] = {}
    print(
        "| attack | 99th percentile before, ms | under attack, ms | times | frames over UDP that came | /health, ms |"
    )
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    for name in options.attacks:
        before = asyncio.run(measure(places, stream, small, options.frames))
        with attacked(name, places, options.codec) as attack:
            time.sleep(options.warm_up)
            under = asyncio.run(measure(places, stream, small, options.frames))
            assert attack.poll() is None, f"the attack {name} ended by itself"
        results[name] = {"before": before, "under": under}
        print(
            f"| {name} | {before['p99_ms']} | {under['p99_ms']} | {under['p99_ms'] / before['p99_ms']:.2f} | "
            f"{100 * under['udp_whole']:.0f} % | {under['health_ms']} |",
            flush=True,
        )
        time.sleep(2.0)
    if options.json is not None:
        options.json.write_text(
            json.dumps({"hardware": hardware(), "frames": options.frames, "attacks": results}, indent=2)
        )
    return all(result["under"]["p99_ms"] <= 2 * result["before"]["p99_ms"] for result in results.values())


def run_soak(options: argparse.Namespace, places: Places, stream: bytes) -> bool:
    """Let good senders and one attack after the other run; return whether descriptors and memory stay as they are."""
    end_s, samples = time.monotonic() + options.soak_seconds, list[tuple[int, float]]()
    began_s, small = time.monotonic(), picture(options.codec, 64, 64)
    while time.monotonic() < end_s:
        for name in options.attacks:
            with attacked(name, places, options.codec):
                asyncio.run(measure(places, stream, small, options.soak_frames))
            time.sleep(1.0)
            samples.append((places.descriptors(), places.memory_mib()))
            print(
                f"{time.monotonic() - began_s:6.0f} s  after {name:12}  {samples[-1][0]:5} descriptors  "
                f"{samples[-1][1]:7.1f} MiB",
                flush=True,
            )
    quarter = max(1, len(samples) // 4)
    growth = [
        max(sample[kind] for sample in samples[-quarter:])
        / max(sample[kind] for sample in samples[quarter : 2 * quarter])
        for kind in (0, 1)
    ]
    print(f"from the second quarter to the last: descriptors x {growth[0]:.2f}, memory x {growth[1]:.2f}")
    return max(growth) <= MOST_GROWTH


def main() -> int:
    """Attack, or be one of the attackers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS), metavar="NAME")
    parser.add_argument("--frames", type=int, default=100, help="number of frames before and under each attack")
    parser.add_argument("--warm-up", type=float, default=10.0, help="seconds of an attack before anything is measured")
    parser.add_argument("--codec", default=CODEC)
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--soak-seconds", type=float, help="soak for this time in place of measuring")
    parser.add_argument("--soak-frames", type=int, default=30, help="number of frames during each attack of a soak")
    parser.add_argument("--attack", choices=list(ATTACKS), help=argparse.SUPPRESS)
    for name in ("--grpc", "--page", "--udp"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack is not None:
        asyncio.run(ATTACKS[options.attack](Places(options.grpc, options.page, options.udp), options.codec))  # type: ignore[arg-type]
        return 0
    stream = picture(options.codec, 256, 512)
    with receiver(options.codec) as places:
        soak = options.soak_seconds is not None
        kept = (run_soak if soak else run_attacks)(options, places, stream)
    print("kept" if kept else "NOT KEPT")
    return 0 if kept else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
