"""Time the link on loopback: one stream stage by stage, many senders at once, many connects, and noise.

`python benchmarks/link.py --out docs/camvid/link-service.json`; each part alone with --parts. The receiver runs in this
process and the senders in another, so that the measured memory is the receiver's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gosvae.bitstream import Header, pack_slices
from gosvae.codecs.registry import load_codec
from gosvae.datasets.streets import Streets
from gosvae.errors import LinkError
from gosvae.experts.registry import load_expert
from gosvae.protocol.frames import Answer, Dropped
from gosvae.protocol.messages import pb
from gosvae.protocol.security import Endpoint
from gosvae.provenance import hardware
from gosvae.receiver.engine import Engine, EngineLimits
from gosvae.receiver.perception import Perception
from gosvae.receiver.service import LinkService
from gosvae.receiver.session import ServiceLimits
from gosvae.sender.client import LinkClient

PARTS = ("stream", "senders", "connects", "fuzz")
STAGES = ("queue_ms", "entropy_ms", "reconstruct_ms", "expert_ms", "answer_ms", "total_ms")
LOOPBACK = Endpoint("127.0.0.1", 0)


def rss_mib() -> float:
    """Return the resident memory of this process now, in MiB."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def spread(values_ms: list[float]) -> dict[str, float]:
    """Return median and 99th percentile."""
    return {"median": round(float(np.median(values_ms)), 3), "p99": round(float(np.percentile(values_ms, 99)), 3)}


def streams(name: str, count: int, height: int, width: int) -> list[bytes]:
    """Return streams of generated scenes."""
    codec = load_codec(name)
    scenes = Streets(count, seed=7, height=height, width=width)
    return [codec.compress(scenes[n].image_uint8_HW3) for n in range(count)]


def in_child(target: Callable[..., Awaitable[dict[str, Any]]], *arguments: Any) -> asyncio.Future[dict[str, Any]]:
    """Run a coroutine of senders in a process of its own."""

    def wait() -> dict[str, Any]:
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            return pool.apply(_run, (target, arguments))

    return asyncio.get_running_loop().run_in_executor(None, wait)


def _run(target: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
    torch.set_num_threads(1)
    result: dict[str, Any] = asyncio.run(target(*arguments))
    return result


async def one_sender(endpoint: Endpoint, codec_name: str, frames: int, height: int, width: int) -> dict[str, Any]:
    """Send one frame after the other and time them at the sender, from picture to class map."""
    codec = load_codec(codec_name)
    scenes = Streets(4, seed=7, height=height, width=width)
    times: dict[str, list[float]] = {name: [] for name in ("encode_ms", "network_ms", "whole_ms", *STAGES)}
    sizes = []
    async with await LinkClient.open(endpoint, name="benchmark") as client:
        answers = client.answers()
        for n in range(frames + 3):
            image = scenes[n % 4].image_uint8_HW3
            began_s = time.perf_counter()
            data = codec.compress(image)
            coded_s = time.perf_counter()
            await client.send(n, data)
            answer = await anext(answers)
            classes_HW = answer.classes() if isinstance(answer, Answer) else None
            done_s = time.perf_counter()
            if not isinstance(answer, Answer) or classes_HW is None:
                raise LinkError(f"frame {n} was refused: {answer}")
            if n >= 3:
                sizes.append(len(data))
                times["encode_ms"].append(1000 * (coded_s - began_s))
                times["whole_ms"].append(1000 * (done_s - began_s))
                times["network_ms"].append(1000 * (done_s - coded_s) - answer.stages.total_ms)
                for stage in STAGES:
                    times[stage].append(getattr(answer.stages, stage))
    return {"frames": frames, "mean_bytes": float(np.mean(sizes)), **{k: spread(v) for k, v in times.items()}}


async def many_senders(endpoint: Endpoint, data: list[bytes], count: int, seconds: float, fps: float) -> dict[str, Any]:
    """Send from many senders at once, at a rate of frames each; return their counts of frames and answers."""
    totals: Counter[str] = Counter()
    trips_ms: list[float] = []
    end_s = time.monotonic() + seconds

    async def sender(n: int) -> None:
        async with await LinkClient.open(endpoint, name=f"car {n}", coding="zlib", timeout_s=60) as client:
            sent_s: dict[int, float] = {}

            async def read() -> None:
                async for answer in client.answers():
                    if isinstance(answer, Answer):
                        totals["answered"] += 1
                        trips_ms.append(1000 * (time.monotonic() - sent_s[answer.number]))
                    else:
                        totals[f"refused: {answer.reason.value}"] += 1

            reading = asyncio.create_task(read())
            number = 0
            await asyncio.sleep(n / count / fps)
            while time.monotonic() < end_s:
                sent_s = {k: v for k, v in sent_s.items() if number - k < 200}
                sent_s[number] = time.monotonic()
                await client.send(number, data[(n + number) % len(data)])
                totals["sent"] += 1
                number += 1
                await asyncio.sleep(1 / fps)
            await client.finish()
            await reading

    await asyncio.gather(*[sender(n) for n in range(count)])
    return {"senders": count, "seconds": seconds, **totals, "round_trip_ms": spread(trips_ms)}


async def many_connects(endpoint: Endpoint, data: bytes, count: int) -> dict[str, Any]:
    """Connect, send a frame, and leave: properly, or without finishing the stream."""
    began_s, totals = time.monotonic(), Counter[str]()

    async def visit(n: int) -> None:
        client = await LinkClient.open(endpoint, timeout_s=120)
        await client.send(0, data if n % 2 else b"garbage")
        if n % 4 < 2:
            await client.finish()
            totals.update([type(answer).__name__ async for answer in client.answers()])
        await client.close()

    for begin in range(0, count, 50):
        await asyncio.gather(*[visit(n) for n in range(begin, min(begin + 50, count))])
    return {"connects": count, "seconds": round(time.monotonic() - began_s, 2), **totals}


def noise(numbers: random.Random, data: list[bytes]) -> bytes:
    """Return a malformed message, or a valid one with garbage, a damaged stream or a forged header in it."""
    kind = numbers.randrange(5)
    good = bytearray(numbers.choice(data))
    if kind == 0:
        return numbers.randbytes(numbers.randrange(200))
    if kind == 1:
        good = bytearray(numbers.randbytes(numbers.randrange(300)))
    elif kind == 2:
        for _ in range(numbers.randrange(1, 4)):
            good[numbers.randrange(len(good))] ^= 1 << numbers.randrange(8)
    elif kind == 3:  # an intact container around random bytes
        header = Header(bytes(good[3:7]), numbers.randrange(1, 4000), numbers.randrange(1, 4000), good[2])
        good = bytearray(pack_slices(header, [numbers.randbytes(numbers.randrange(60))]))
    frame = pb().Frame(number=numbers.randrange(2**63), stream=bytes(good), deadline_ms=numbers.randrange(2**31))
    message: bytes = pb().FromSender(frame=frame).SerializeToString()
    return message[: numbers.randrange(len(message))] if kind == 4 else message


async def fuzz(endpoint: Endpoint, data: list[bytes], count: int, seed: int) -> dict[str, Any]:
    """Send messages of noise, 5,000 in each stream; then send a good frame, which must be answered."""
    numbers, totals = random.Random(seed), Counter[str]()
    began_s, left = time.monotonic(), count
    while left:
        batch = min(left, 5000)
        async with await LinkClient.open(endpoint, coding="none", timeout_s=60) as client:

            async def read(client: LinkClient = client) -> None:
                async for answer in client.answers():
                    totals[answer.reason.value if isinstance(answer, Dropped) else "result"] += 1

            reading = asyncio.create_task(read())
            for _ in range(batch):
                await client.send_raw(noise(numbers, data))
            await client.finish()
            await reading
        left -= batch
    async with await LinkClient.open(endpoint) as client:
        await client.send(0, data[0])
        alive = isinstance(await anext(client.answers()), Answer)
    return {"messages": count, "seconds": round(time.monotonic() - began_s, 1), "answers": totals, "alive": alive}


async def receiving(
    options: argparse.Namespace, limits: EngineLimits, work: Callable[[LinkService], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    """Run senders against a receiver; return their result with its counters and its memory, sampled each second."""
    perception = Perception(load_codec(options.codec), load_expert(options.expert))
    service_limits = ServiceLimits(max_malformed=10**9, max_streams=1024)
    async with Engine(perception, limits) as engine, LinkService(engine, LOOPBACK, limits=service_limits) as service:
        samples: list[float] = []

        async def sample() -> None:
            while True:
                await asyncio.sleep(1.0)
                samples.append(round(rss_mib(), 1))

        sampling = asyncio.create_task(sample())
        result = await work(service)
        sampling.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while engine.counters.waiting or engine.counters.working or service.counters.open_streams:
                    await asyncio.sleep(0.01)
        counters = engine.counters
        dropped = {reason.value: count for reason, count in counters.dropped.items() if count}
        result["receiver"] = {
            **{k: v for k, v in asdict(counters).items() if k != "dropped"},
            "dropped": dropped,
            "unaccounted": counters.unaccounted,
            "service": asdict(service.counters),
        }
        fifth = max(len(samples) // 5, 1)
        if len(samples) >= 5:  # the first fifth is the warm-up: buffers, threads, compiled kernels
            result["rss_mib"] = {
                "after_warm_up": float(np.median(samples[fifth : 2 * fifth])),
                "end": float(np.median(samples[-fifth:])),
                "most": max(samples),
            }
        return result


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all parts that are asked for."""
    results: dict[str, Any] = {}
    small = streams(options.codec, 4, *options.small)
    patient = EngineLimits(deadline_ms=0, max_frames=256)
    if "stream" in options.parts:
        sizes = (options.frames, *options.size)
        results["stream"] = await receiving(
            options, patient, lambda s: in_child(one_sender, s.endpoint, options.codec, *sizes)
        )
    if "senders" in options.parts:
        many = (small, options.senders, options.seconds, options.fps)
        results["senders"] = await receiving(
            options, EngineLimits(), lambda s: in_child(many_senders, s.endpoint, *many)
        )
    if "connects" in options.parts:
        results["connects"] = await receiving(
            options, patient, lambda s: in_child(many_connects, s.endpoint, small[0], options.connects)
        )
    if "fuzz" in options.parts:
        every_one = EngineLimits(policy="block", deadline_ms=0)  # no message is refused because the queue is full
        results["fuzz"] = await receiving(
            options, every_one, lambda s: in_child(fuzz, s.endpoint, small, options.messages, 0)
        )
    return results


def show(results: dict[str, Any]) -> None:
    """Print the table of the single stream, and a line for each other part."""
    if "stream" in results:
        stream = results["stream"]
        print(f"one stream, {stream['frames']} frames of {stream['mean_bytes']:.0f} bytes; ms: median, 99th percentile")
        for name in ("encode_ms", "network_ms", *STAGES, "whole_ms"):
            print(f"  {name.removesuffix('_ms'):<12} {stream[name]['median']:9.2f} {stream[name]['p99']:9.2f}")
    for part in PARTS[1:]:
        if part in results:
            print(f"{part}: {json.dumps(results[part])}")


def main() -> int:
    """Measure, print the results, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--codec", default="gosvae-variable-camvid")
    parser.add_argument("--expert", default="embedded")
    parser.add_argument("--frames", type=int, default=200, help="number of frames of the single stream")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), help="height and width of the single stream")
    parser.add_argument("--small", type=int, nargs=2, default=(64, 96), help="height and width of all other streams")
    parser.add_argument("--senders", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the many senders, up to 600")
    parser.add_argument("--fps", type=float, default=2.0, help="frames a second of each of the many senders")
    parser.add_argument("--connects", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=100_000, help="number of messages of noise")
    parser.add_argument("--threads", type=int, default=2, help="number of threads of the receiver's networks")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = asyncio.run(measure(options))
    show(results)
    if options.out:
        settings = {k: v for k, v in vars(options).items() if k != "out"}
        tree = {"hardware": hardware(), "settings": settings, "results": results}
        options.out.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
