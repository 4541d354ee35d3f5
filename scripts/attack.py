#!/usr/bin/env python3
"""Attack a receiver on this machine and print the latency of a good sender without and under each attack.

scripts/attack.py --json attacks.json                # at most 18 minutes; needs a machine that is idle otherwise
scripts/attack.py --attacks large --frames 600       # one attack, at most 4 minutes
scripts/attack.py --soak-seconds 1800 --json soak.json

The receiver, the good senders and the attackers are processes of their own; attackers have the lowest priority, so that
what is measured is the receiver and not the machine. The good sender is measured before the first attack and after each
of them; an attack is compared with both measurements around it. A measurement ends after `--frames` frames or
`--seconds` seconds. Every attack is bounded and ends with this script. The script exits with 1 if the 99th percentile
is more than doubled, if a frame of the good sender is refused under an attack, if a measurement has too few frames to
tell, or if descriptors or memory grow in a soak.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from attackers import ATTACKS, STREAM_ID, TOKEN, Places, picture, receiver

from gosvae.protocol.frames import Answer
from gosvae.provenance import hardware
from gosvae.sender.client import LinkClient
from gosvae.sender.udp import UdpSender

CODEC = "gosvae-variable-camvid"
MOST_GROWTH = 1.2
"""Greatest growth of descriptors and memory in a soak, from the second quarter to the last."""
LEAST_FRAMES = 100
"""Number of frames of a measurement below which nothing can be said about one frame in a hundred."""


@dataclass
class Measured:
    """What good senders get: times until answers over gRPC, refused frames, frames over UDP, slowest health check."""

    times_ms: list[float]
    refused: int
    udp_sent: int
    udp_whole: float
    health_ms: float

    def __add__(self, other: Measured) -> Measured:
        sent, whole = self.udp_sent + other.udp_sent, self.udp_whole + other.udp_whole
        times_ms, refused = self.times_ms + other.times_ms, self.refused + other.refused
        return Measured(times_ms, refused, sent, whole, max(self.health_ms, other.health_ms))

    @property
    def p99_ms(self) -> float:
        """99th percentile of the times."""
        return float(np.percentile(self.times_ms, 99))

    def as_tree(self) -> dict[str, float]:
        """Return the figures for a JSON file."""
        return {
            "frames": len(self.times_ms),
            "refused": self.refused,
            "median_ms": round(float(np.median(self.times_ms)), 2),
            "p99_ms": round(self.p99_ms, 2),
            "slowest_ms": round(max(self.times_ms), 2),
            "udp_sent": self.udp_sent,
            "udp_whole": self.udp_whole,
            "health_ms": round(self.health_ms, 1),
        }


async def good_sender(places: Places, stream: bytes, frames: int, seconds: float) -> tuple[list[float], int]:
    """Send frames one after the other, with a pause; return the times in ms until their answers, and the number of
    frames that were refused."""
    times_ms, refused, end_s = list[float](), 0, time.monotonic() + seconds
    async with await LinkClient.open(places.grpc, name="good", token=TOKEN, timeout_s=60) as client:
        answers = client.answers()
        for number in range(frames):
            began_s = time.perf_counter()
            await client.send(number, stream, deadline_ms=60_000)
            answer = await anext(answers)
            if isinstance(answer, Answer):
                times_ms.append(1000 * (time.perf_counter() - began_s))
            else:
                refused += 1
                print(f"frame {number} was refused: {answer}", file=sys.stderr)
            if time.monotonic() > end_s:
                break
            await asyncio.sleep(0.05)
    return times_ms, refused


async def good_udp(places: Places, stream: bytes, end: asyncio.Event) -> int:
    """Send small frames over UDP, five a second, until the event, and return their number."""
    options, sent = {"stream_id": STREAM_ID, "first_frame": places.next_frame}, 0
    async with await UdpSender.open(places.udp.host, places.udp.port, **options) as sender:
        while not end.is_set():
            await sender.send(stream)
            sent += 1
            await asyncio.sleep(0.2)
    places.next_frame += sent
    return sent


def answered_udp(metrics: dict[str, float]) -> float:
    """Return the number of frames over UDP that came whole."""
    return metrics.get('gosvae_udp_events_total{event="complete",layer="packets"}', 0.0)


async def measure(places: Places, stream: bytes, small: bytes, frames: int, seconds: float) -> Measured:
    """Return what good senders over gRPC and UDP get, and how long the receiver's health check takes at most."""
    before, end = answered_udp(places.metrics()), asyncio.Event()
    udp = asyncio.create_task(good_udp(places, small, end))
    health_ms = [0.0]

    async def check() -> None:
        while not end.is_set():
            began_s = time.perf_counter()
            await asyncio.to_thread(lambda: urlopen(f"http://{places.page}/health", timeout=60).read())
            health_ms.append(1000 * (time.perf_counter() - began_s))
            await asyncio.sleep(1.0)

    checking = asyncio.create_task(check())
    try:
        times_ms, refused = await good_sender(places, stream, frames, seconds)
    finally:
        end.set()
    sent = await udp
    await checking
    await asyncio.sleep(1.0)
    return Measured(times_ms, refused, sent, answered_udp(places.metrics()) - before, max(health_ms))


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


def run_attacks(options: argparse.Namespace, places: Places, stream: bytes) -> bool:
    """Measure around and under each attack, print a table, and return whether the promise is kept."""
    small, bounds = picture(options.codec, 64, 64), (options.frames, options.seconds)
    asyncio.run(good_sender(places, stream, 5, options.seconds))
    results: dict[str, dict[str, dict[str, float]]] = {}
    kept = True
    print(
        "| attack | frames without, under | refused | 99th percentile without, ms | under attack, ms | times | "
        "frames that took more than twice | frames over UDP that came | /health, ms |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    before = asyncio.run(measure(places, stream, small, *bounds))
    for name in options.attacks:
        with attacked(name, places, options.codec) as attack:
            time.sleep(options.warm_up)
            under = asyncio.run(measure(places, stream, small, *bounds))
            assert attack.poll() is None, f"the attack {name} ended by itself"
        time.sleep(2.0)
        after = asyncio.run(measure(places, stream, small, *bounds))
        without, before = before + after, after
        twice_ms = 2 * without.p99_ms
        slow = sum(ms > twice_ms for ms in under.times_ms)
        enough = min(len(under.times_ms), len(without.times_ms)) >= LEAST_FRAMES
        kept &= enough and under.p99_ms <= twice_ms and not under.refused
        results[name] = {"without": without.as_tree(), "under": under.as_tree()}
        print(
            f"| {name} | {len(without.times_ms)}, {len(under.times_ms)}{'' if enough else ' (too few)'} | "
            f"{without.refused}, {under.refused} | {without.p99_ms:.1f} | {under.p99_ms:.1f} | "
            f"{under.p99_ms / without.p99_ms:.2f} | {slow} | "
            f"{100 * under.udp_whole / max(1, under.udp_sent):.0f} % | {under.health_ms:.1f} |",
            flush=True,
        )
    write_json(options, {"attacks": results})
    return kept


def write_json(options: argparse.Namespace, result: dict[str, object]) -> None:
    """Write a result with the machine to the file that `--json` names."""
    if options.json is not None:
        tree = {"hardware": hardware(), "codec": options.codec, **result}
        options.json.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def run_soak(options: argparse.Namespace, places: Places, stream: bytes) -> bool:
    """Let good senders and one attack after the other run; return whether descriptors and memory stay as they are."""
    end_s, samples = time.monotonic() + options.soak_seconds, list[tuple[int, float]]()
    began_s, small = time.monotonic(), picture(options.codec, 64, 64)
    print("| seconds | after | descriptors | memory, MiB |\n|--:|---|--:|--:|", flush=True)
    while time.monotonic() < end_s:
        for name in options.attacks:
            with attacked(name, places, options.codec):
                asyncio.run(measure(places, stream, small, options.soak_frames, options.seconds))
            time.sleep(1.0)
            samples.append((places.descriptors(), places.memory_mib()))
            passed_s = time.monotonic() - began_s
            print(f"| {passed_s:.0f} | {name} | {samples[-1][0]} | {samples[-1][1]:.1f} |", flush=True)
    quarter = max(1, len(samples) // 4)
    growth = [
        max(sample[kind] for sample in samples[-quarter:])
        / max(sample[kind] for sample in samples[quarter : 2 * quarter])
        for kind in (0, 1)
    ]
    print(f"\nfrom the second quarter to the last: descriptors x {growth[0]:.2f}, memory x {growth[1]:.2f}")
    write_json(options, {"samples": samples, "growth": growth})
    return max(growth) <= MOST_GROWTH


def main() -> int:
    """Attack, or be one of the attackers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS), metavar="NAME")
    parser.add_argument("--frames", type=int, default=300, help="number of frames of a measurement")
    parser.add_argument("--seconds", type=float, default=60.0, help="longest time of a measurement")
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
        kept = (run_attacks if options.soak_seconds is None else run_soak)(options, places, stream)
    print("kept" if kept else "NOT KEPT")
    return 0 if kept else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
