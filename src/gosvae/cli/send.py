"""`gosvae send`: send pictures of a folder, a video, a camera or a pipe to a receiver, at a given rate."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np

from gosvae.bitstream import MAX_SLICES
from gosvae.cli.loading import add_sender_loading, loading_of
from gosvae.cli.options import add_device, add_precision, device_of, parse_size, precision_of, standard_input
from gosvae.cli.send_report import print_summary, tell
from gosvae.codecs.base import ImageCodec
from gosvae.codecs.layered import LayeredCodec
from gosvae.codecs.registry import DEFAULT_CODEC, option_names, sequences_of
from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.sequence.rate import DEFAULT_MAX_AGE_MS
from gosvae.codecs.slices import DEFAULT_OPTIONS, StreamOptions
from gosvae.codecs.trained import TrainedCodec
from gosvae.errors import ConfigError, ImageError, LinkError
from gosvae.files import write_atomically
from gosvae.images import write_image
from gosvae.packets.packet import DEFAULT_MTU_BYTES
from gosvae.protocol.class_maps import ClassMapCoding
from gosvae.protocol.frames import Answer
from gosvae.protocol.security import TOKEN_VARIABLE, ClientTls, Endpoint, read_key, read_token
from gosvae.sender.client import LinkClient
from gosvae.sender.grpc_target import GrpcTarget
from gosvae.sender.reconnect import Reconnection
from gosvae.sender.sender import UdpTarget, send_pictures
from gosvae.sender.sequence_transmitter import SequenceTransmitter
from gosvae.sender.sources import CAMERA, PictureFiles, VideoFrames, is_video, open_source, resized, video_fps
from gosvae.sender.target import Target
from gosvae.sender.transmitter import Transmitter
from gosvae.sender.udp import UdpSender
from gosvae.tensors import ImageArray

EXAMPLE = """examples:
  gosvae send images --grpc 127.0.0.1:7777 --fps 10 --loop
  gosvae send drive.mp4 --grpc 127.0.0.1:7777 --resize 256x512 --kbps 120
  gosvae send camera:v4l2:/dev/video0 --udp 127.0.0.1:7778 --resize 256x512 --kbps 200 --slices 8 --fec 0.25
  ffmpeg -i drive.mp4 -f image2pipe -c:v ppm - | gosvae send - --grpc 127.0.0.1:7777
"""
DEFAULT_FPS = 10.0
PACE = 2.0
"""Ratio of the pace of UDP packets to the rate: a frame is sent in half of its time, which leaves time for coding."""
MOST_FPS = 1000.0
GIVE_UP_AFTER_S = 60.0
"""Seconds without a receiver after which the command ends."""


def add_send(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae send`."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "source", nargs="+",
        help="image files and folders, or a video file, or camera:FORMAT:DEVICE, or - for standard input: binary PPM "
        "images, or image files, each after its length as 4 bytes, big-endian",
    )  # fmt: skip
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--grpc", metavar="HOST:PORT", help="address of the receiver, which answers")
    place.add_argument(
        "--udp", metavar="HOST:PORT", help="address of the receiver over a link that may lose packets; without answers"
    )
    parser.add_argument("--codec", default=DEFAULT_CODEC, help="name from gosvae list, or checkpoint folder")
    add_sender_loading(parser)
    parser.add_argument("--level", type=int, metavar="0..255", help="level of a variable-rate codec")
    parser.add_argument(
        "--kbps", type=float, metavar="KBPS",
        help="rate of the link in 1000 bits per second: every frame gets the best quality that fits; over UDP the "
        f"packets of a frame leave at {PACE:g} times this rate, which leaves time to code the next one",
    )  # fmt: skip
    parser.add_argument(
        "--fps", type=float, metavar="FPS",
        help=f"largest number of frames per second; default: that of a video, all frames of a camera or a pipe, else "
        f"{DEFAULT_FPS:g}",
    )  # fmt: skip
    parser.add_argument("--loop", action="store_true", help="start again after the last image")
    parser.add_argument(
        "--live", action=argparse.BooleanOptionalAction,
        help="skip images that come late, or wait until every one has arrived; default: --live for a camera, a pipe "
        "and --loop, else --no-live",
    )  # fmt: skip
    parser.add_argument(
        "--video", action=argparse.BooleanOptionalAction,
        help="send frames that depend on earlier ones, in far fewer bytes, or each on its own; default: --video for a "
        "camera or a video, if the codec has a temporal model",
    )  # fmt: skip
    parser.add_argument(
        "--max-age-ms", type=float, metavar="MS",
        help=f"with --video and --kbps: longest time between frames that are sent; default: {DEFAULT_MAX_AGE_MS:g}",
    )  # fmt: skip
    parser.add_argument("--frames", type=int, metavar="N", help="stop after N frames")
    parser.add_argument("--resize", type=parse_size, metavar="HxW", help="resize images to this size first")
    parser.add_argument("--name", default=socket.gethostname(), help="name of this sender on the receiver's page")
    parser.add_argument(
        "--originals", action="store_true", help="also send each image as JPEG, for the page; gRPC only"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder for what comes back: class maps as PNG, results of other experts as NPZ; gRPC only",
    )
    parser.add_argument(
        "--slices",
        type=int,
        default=1,
        metavar="N",
        help="number of interleaved slices; each can be decoded without the others",
    )
    udp = parser.add_argument_group("UDP")
    udp.add_argument(
        "--fec", type=float, default=0.0, metavar="SHARE", help="number of repair packets for each packet, such as 0.25"
    )
    udp.add_argument("--mtu", type=int, default=DEFAULT_MTU_BYTES, metavar="BYTES", help="size of the largest packet")
    udp.add_argument(
        "--key-file", type=Path, metavar="FILE", help="file with the receiver's key: packets are encrypted"
    )
    security = parser.add_argument_group("security of gRPC")
    security.add_argument("--tls", action="store_true", help="encrypt; --ca and --cert imply it")
    security.add_argument(
        "--ca", type=Path, metavar="FILE", help="certificate of the authority that signed the receiver's, PEM"
    )
    security.add_argument("--cert", type=Path, metavar="FILE", help="certificate of this sender, PEM")
    security.add_argument("--key", type=Path, metavar="FILE", help="key of the certificate, PEM")
    security.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"file with the receiver's token; default: the environment's {TOKEN_VARIABLE}",
    )
    security.add_argument("--insecure", action="store_true", help="allow the token to travel without encryption")
    reaching = parser.add_argument_group("reaching the receiver over gRPC")
    reaching.add_argument(
        "--give-up-after", type=parse_patience, default=GIVE_UP_AFTER_S, metavar="SECONDS",
        help="end after this time without a receiver; until then the sender waits, longer after each attempt, and goes "
        "on when the receiver is there; 0: end at the first failure; never: wait without end",
    )  # fmt: skip
    reaching.add_argument(
        "--proxy", action="store_true", help="connect through the HTTP proxy that the environment names, as https_proxy"
    )
    parser.add_argument("--quiet", action="store_true", help="print no line each second")
    add_device(parser)
    add_precision(parser)
    parser.set_defaults(run=run_send)


def parse_patience(text: str) -> float:
    """Return a number of seconds of 0 or more, or infinity for `never`."""
    if text == "never":
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, 0 or more, or never")
    return seconds


@dataclass
class _Saver:
    """Writer of class maps to a folder, and of the results of the receiver's other experts."""

    folder: Path

    def __call__(self, answer: Answer) -> None:
        stem = f"{answer.number:06d}"
        if answer.coding != "none":
            write_image(self.folder / f"{stem}.png", answer.classes()[..., None].repeat(3, axis=2))
        if answer.results:
            arrays = {f"{each.expert}.{name}": v for each in answer.results for name, v in each.arrays().items()}
            file = BytesIO()
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # keys hold a point: none is an option
            write_atomically(self.folder / f"{stem}.npz", file.getvalue())


def _codec(options: argparse.Namespace) -> ImageCodec:
    """Return the codec with the slices and the level that the options ask for."""
    spec = options.codec
    if options.level is not None:
        if "level" not in option_names(spec):
            raise ConfigError(f"--level is for variable-rate codecs: {spec!r} is not one")
        if options.kbps is not None:
            raise ConfigError("--level and --kbps both set the rate: give one")
        spec = f"{spec}:{options.level}"
    stream_options = DEFAULT_OPTIONS
    if options.slices != 1:
        stream_options = StreamOptions(slices=options.slices, layout="interleaved")
    precision = precision_of(options.codec, options)
    load = loading_of(options, expert=options.expert).load_codec
    return load(spec, options=stream_options, device=device_of(options), precision=precision)


class _Damaged:
    """Files that are no pictures, and damaged frames of videos: each pass over them is told, and they are counted."""

    def __init__(self) -> None:
        self.count = 0

    def step_over(self, pictures: Iterator[ImageArray]) -> Iterator[ImageArray]:
        """Yield the pictures of files that can be read.

        Raises:
            ImageError: no picture of a pass can be read, or the source is not made of files.
        """
        good, latest = 0, None
        while True:
            try:
                picture = next(pictures)
            except StopIteration:
                if latest is not None and not good:
                    raise latest from None
                self.count += pictures.damaged if isinstance(pictures, VideoFrames) else 0
                return
            except ImageError as error:
                if not isinstance(pictures, PictureFiles):
                    raise
                self.count += 1
                latest = error
                print(f"gosvae: skipped: {error}", file=sys.stderr, flush=True)
                continue
            good += 1
            yield picture


def _pictures(options: argparse.Namespace, damaged: _Damaged) -> Iterator[ImageArray]:
    """Yield the pictures of the source, resized, and start again after the last one with `--loop`."""
    names = options.source
    endless = names[0] == "-" or names[0].startswith(CAMERA)
    if options.loop and endless:
        raise ConfigError(f"--loop: {names[0]} cannot begin again")
    stdin = standard_input() if "-" in names else BytesIO()  # closed for a service: touched for `-` only
    first = open_source(names, stdin)  # a missing source is reported before a connection is made

    def passes() -> Iterator[Iterator[ImageArray]]:
        yield damaged.step_over(first)
        while options.loop:
            yield damaged.step_over(open_source(names, stdin))

    for number, picture in enumerate(chain.from_iterable(passes())):
        if options.frames is not None and number >= options.frames:
            return
        yield picture if options.resize is None else resized(picture, *options.resize)


def _is_live(options: argparse.Namespace) -> bool:
    """Return whether pictures that come late are skipped; otherwise each one waits until the receiver takes it."""
    if options.live is not None:
        return bool(options.live)
    return bool(options.loop or options.source[0] == "-" or options.source[0].startswith(CAMERA))


def _fps(options: argparse.Namespace) -> float | None:
    """Return the number of frames a second; None sends them as they come."""
    if options.fps is not None:
        if not 0 < options.fps <= MOST_FPS:
            raise ConfigError(f"--fps {options.fps:g}: expected more than 0 and at most {MOST_FPS:g}")
        return float(options.fps)
    name = options.source[0]
    if name == "-" or name.startswith(CAMERA):
        return None
    return (video_fps(name) or DEFAULT_FPS) if is_video(name) else DEFAULT_FPS


def run_send(options: argparse.Namespace) -> int:
    """Send pictures until there are no more, or until interrupted."""
    codec, fps = _codec(options), _fps(options)
    if options.udp is not None and (options.originals or options.out):
        raise ConfigError("--originals and --out are for --grpc: over UDP nothing comes back")
    if options.grpc is not None and options.key_file:
        raise ConfigError("--key-file is for --udp: over gRPC --tls and --token-file do its work")
    if options.grpc is not None and options.fec:
        raise ConfigError("--fec is for --udp: over gRPC nothing is lost")
    damaged = _Damaged()
    pictures = _pictures(options, damaged)
    first = next(pictures, None)
    if first is None:
        raise ConfigError(f"no pictures in {options.source[0]}")
    transmitter = _transmitter(options, codec, fps or DEFAULT_FPS)
    status = asyncio.run(_send(options, chain([first], pictures), transmitter, fps))
    if damaged.count:
        print(f"{damaged.count} damaged pictures skipped")
        return status or 1
    return status


def _transmitter(options: argparse.Namespace, codec: ImageCodec, fps: float) -> Transmitter:
    """Return the transmitter of a video, or of pictures on their own."""
    name = options.source[0]
    wanted = options.video
    if wanted is None:
        wanted = name.startswith(CAMERA) or is_video(name)
    sequences: SequenceCodec | None = None
    if wanted:
        sequences = sequences_of(codec, options.codec, slices=options.slices, verify=not options.no_verify)
    if sequences is None and options.video:
        raise ConfigError(f"--video: {codec.name} has no temporal model")
    if options.max_age_ms is not None and (sequences is None or options.kbps is None):
        raise ConfigError("only a video with a rate leaves frames out: give --video and --kbps", argument="max_age_ms")
    if sequences is None:
        return Transmitter(codec, kbps=options.kbps, fps=fps)
    age_ms = DEFAULT_MAX_AGE_MS if options.max_age_ms is None else options.max_age_ms
    return SequenceTransmitter(sequences, kbps=options.kbps, fps=fps, max_age_ms=age_ms, lossy=options.udp is not None)


async def _send(
    options: argparse.Namespace, pictures: Iterator[ImageArray], transmitter: Transmitter, fps: float | None
) -> int:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    began_s = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        target = await _target(options, transmitter.codec, stack, stop)
        if isinstance(transmitter, SequenceTransmitter):
            target.on_outcome, target.recode = transmitter.hear, transmitter.recode
        teller = asyncio.create_task(tell(target, transmitter, quiet=options.quiet))
        try:
            await send_pictures(pictures, transmitter, target, fps=fps, stop=stop, patient=not _is_live(options))
        except TimeoutError:
            raise LinkError("the receiver did not answer all frames in time") from None
        finally:
            teller.cancel()
            print_summary(target, transmitter, time.monotonic() - began_s)
    counters, waits = target.counters, isinstance(target, GrpcTarget) and not _is_live(options)
    return 1 if waits and counters.answered < counters.sent else 0


async def _target(
    options: argparse.Namespace, codec: ImageCodec, stack: contextlib.AsyncExitStack, stop: asyncio.Event
) -> Target:
    """Connect to the receiver."""
    if options.udp is not None:
        endpoint = Endpoint.parse(options.udp)
        pace_kbps = None if options.kbps is None else PACE * options.kbps
        try:
            sender = await UdpSender.open(
                endpoint.host,
                endpoint.port,
                overhead=options.fec,
                mtu_bytes=options.mtu,
                slices_per_packet=1 if options.slices > 1 else MAX_SLICES,
                kbps=pace_kbps,
                key=None if options.key_file is None else read_key(options.key_file),
            )
        except OSError as error:
            raise LinkError(f"cannot send to {endpoint}: {error.strerror or error}") from None
        if pace_kbps is not None and not options.quiet:
            print(f"UDP packets of a frame leave at {pace_kbps:g} kbit/s, {PACE:g} times --kbps", flush=True)
        return UdpTarget(await stack.enter_async_context(sender))
    secret = options.tls or options.ca is not None or options.cert is not None
    coding: ClassMapCoding = "none" if options.out is None else "zlib"
    connect = partial(
        LinkClient.open,
        Endpoint.parse(options.grpc),
        name=options.name,
        coding=coding,
        results=options.out is not None,
        fingerprint=codec.fingerprint if isinstance(codec, TrainedCodec | LayeredCodec) else b"",
        patient=not _is_live(options),
        tls=ClientTls(authority=options.ca, certificate=options.cert, key=options.key) if secret else None,
        token=read_token(options.token_file),
        insecure=options.insecure,
        proxy=options.proxy,
    )
    reconnection = Reconnection(
        connect,
        give_up_after_s=options.give_up_after,
        fresh_s=None if _is_live(options) else math.inf,
        say=lambda line: print(f"gosvae: {line}", file=sys.stderr, flush=True),
        stop=stop,
    )
    client = await reconnection.connect()
    target = GrpcTarget(
        client,
        originals=options.originals,
        on_answer=None if options.out is None else _Saver(options.out),
        reconnection=reconnection if options.give_up_after > 0 else None,
        patient=not _is_live(options),
    )
    stack.push_async_callback(target.close)
    return target
