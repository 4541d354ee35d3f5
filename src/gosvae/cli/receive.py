"""`gosvae receive`: decode frames of senders, apply the expert, answer, and show the results on a page."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from pathlib import Path

from gosvae.cli.loading import add_loading, experts_of, loading_of
from gosvae.cli.options import EXPERT_HELP, add_device, add_precision, device_of, precision_of
from gosvae.codecs.base import ClassMapCodec
from gosvae.codecs.registry import DEFAULT_CODEC, sequences_of
from gosvae.errors import ConfigError
from gosvae.packets.inlet import DEFAULT_DEADLINE_MS
from gosvae.protocol.security import TOKEN_VARIABLE, Endpoint, ServerTls, read_key, read_token
from gosvae.receiver.connections import raise_descriptor_limit
from gosvae.receiver.engine import POLICIES, EngineLimits
from gosvae.receiver.limits import ServiceLimits
from gosvae.receiver.perception import LEAST_MAX_PIXELS, Perception
from gosvae.receiver.receiver import Receiver, ReceiverConfig
from gosvae.units import kib

EXAMPLE = """examples:
  gosvae receive --grpc 127.0.0.1:7777 --page 127.0.0.1:7780
  gosvae receive --udp 127.0.0.1:7778 --page 127.0.0.1:7780 --expert my-network.pt2 --trust
  gosvae receive --grpc 127.0.0.1:7777 --expert embedded --expert boxes=detector.onnx
  gosvae receive --grpc 0.0.0.0:7777 --tls-cert cert.pem --tls-key key.pem --token-file token
"""
ENGINE, SERVICE = EngineLimits(), ServiceLimits()


def add_receive(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae receive`."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "--codec", default=DEFAULT_CODEC, help="codec of the senders: a name from gosvae list, or a checkpoint folder"
    )
    parser.add_argument(
        "--expert", action="append", metavar="EXPERT",
        help=f"{EXPERT_HELP}; repeatable, as NAME=EXPERT: the first segmentation network gives the class map, each of "
        "the others a result of its own; default: embedded",
    )  # fmt: skip
    add_loading(parser)
    parser.add_argument(
        "--grpc", metavar="HOST:PORT", help="address to listen on for senders over gRPC; port 0: any free port"
    )
    parser.add_argument("--udp", metavar="HOST:PORT", help="address to listen on for packets over UDP")
    parser.add_argument("--page", metavar="HOST:PORT", help="address of the live page, and of /metrics for Prometheus")
    security = parser.add_argument_group("security")
    security.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="certificate of this receiver with its chain, PEM"
    )
    security.add_argument("--tls-key", type=Path, metavar="FILE", help="key of the certificate, PEM")
    security.add_argument(
        "--client-ca", type=Path, metavar="FILE", help="authority that must have signed the senders' certificates, PEM"
    )
    security.add_argument(
        "--token-file", type=Path, metavar="FILE",
        help=f"file with the token that senders and readers of the page must know; default: the environment's "
        f"{TOKEN_VARIABLE}",
    )  # fmt: skip
    security.add_argument(
        "--key-file", type=Path, metavar="FILE",
        help="file with the key that senders over UDP must know: their packets are then encrypted and authenticated",
    )  # fmt: skip
    security.add_argument(
        "--insecure",
        action="store_true",
        help="allow connections from outside this machine without TLS or without a token",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--policy", choices=POLICIES, default=ENGINE.policy,
        help="when the queue is full: drop the busiest sender's oldest frame, drop the new frame, or let senders wait",
    )  # fmt: skip
    limits.add_argument(
        "--deadline-ms", type=float, metavar="MS",
        help=f"drop frames that are older than this when their turn comes; 0: never; default: {ENGINE.deadline_ms:g}, "
        "with the policy block 0",
    )  # fmt: skip
    limits.add_argument(
        "--queue", type=int, default=ENGINE.max_frames, metavar="N", help="number of frames that may wait"
    )
    limits.add_argument(
        "--batch", type=int, default=ENGINE.max_batch, metavar="N", help="number of frames decoded together"
    )
    limits.add_argument(
        "--max-frame-kib",
        type=float,
        default=kib(SERVICE.max_frame_bytes),
        metavar="KIB",
        help="size of the largest frame",
    )
    limits.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help=f"number of pixels of the largest frame; default: {LEAST_MAX_PIXELS}, or 4 times the size of the expert's "
        "pictures if that is more",
    )
    limits.add_argument(
        "--max-streams", type=int, default=SERVICE.max_streams, metavar="N", help="number of senders at once"
    )
    limits.add_argument(
        "--udp-deadline-ms", type=float, default=DEFAULT_DEADLINE_MS, metavar="MS",
        help="time to wait for a frame after its first packet",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="print neither the addresses nor the summary")
    add_device(parser)
    add_precision(parser)
    parser.set_defaults(run=run_receive)


def _config(options: argparse.Namespace) -> ReceiverConfig:
    """Return the configuration that the options ask for; errors are those of `ReceiverConfig`."""
    if (options.tls_cert is None) != (options.tls_key is None) or (options.client_ca and not options.tls_cert):
        raise ConfigError("--tls-cert and --tls-key go together, and --client-ca needs both")
    if options.key_file is not None and options.udp is None:
        raise ConfigError("--key-file is for --udp, and no address for UDP is given")
    tls = None if options.tls_cert is None else ServerTls(options.tls_cert, options.tls_key, options.client_ca)
    deadline_ms = options.deadline_ms
    if deadline_ms is None:
        deadline_ms = 0.0 if options.policy == "block" else ENGINE.deadline_ms
    grpc, udp, page = (
        None if text is None else Endpoint.parse(text) for text in (options.grpc, options.udp, options.page)
    )
    return ReceiverConfig(
        grpc=grpc,
        udp=udp,
        page=page,
        engine=EngineLimits(
            policy=options.policy, max_frames=options.queue, max_batch=options.batch, deadline_ms=deadline_ms
        ),
        service=ServiceLimits(max_frame_bytes=int(1024 * options.max_frame_kib), max_streams=options.max_streams),
        udp_deadline_ms=options.udp_deadline_ms,
        udp_key=None if options.key_file is None else read_key(options.key_file),
        tls=tls,
        token=read_token(options.token_file),
        insecure=options.insecure,
    )


def run_receive(options: argparse.Namespace) -> int:
    """Receive until interrupted or terminated."""
    config = _config(options)
    if config.tls is not None and config.tls.client_authority is not None:
        # Certificates are refused inside gRPC, which says so at this level of its own log only.
        os.environ.setdefault("GRPC_VERBOSITY", "INFO")
    device, loading = device_of(options), loading_of(options)
    codec = loading.load_codec(options.codec, device=device, precision=precision_of(options.codec, options))
    expert, judges = (None, {}) if isinstance(codec, ClassMapCodec) else experts_of(options, device, loading)
    sequences = sequences_of(codec, options.codec, verify=loading.verify)
    perception = Perception(
        codec, expert, judges=judges, device=device, max_pixels=options.max_pixels, sequences=sequences
    )
    logging.getLogger("gosvae.receiver").setLevel(logging.INFO)
    raise_descriptor_limit()
    receiver = Receiver(perception, config)
    asyncio.run(_receive(receiver, quiet=options.quiet))
    if not options.quiet:
        _print_summary(receiver)
    return 0


async def _receive(receiver: Receiver, *, quiet: bool) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with receiver:
        if not quiet:
            _print_places(receiver)
        await stop.wait()


def _print_places(receiver: Receiver) -> None:
    perception, config = receiver.engine.perception, receiver.config
    print(f"{perception.codec.name} to {perception.expert_name}, policy {config.engine.policy}")
    if receiver.service is not None:
        print(f"gRPC  {receiver.service.endpoint}{', TLS' if config.tls else ''}{', token' if config.token else ''}")
    if receiver.udp is not None:
        print(f"UDP   {Endpoint(*receiver.udp.address)}{', key' if config.udp_key else ''}")
    if receiver.web is not None:
        print(f"page  {'https' if config.tls else 'http'}://{receiver.web.endpoint}/ (metrics: /metrics)")
    print("Ctrl-C ends it", flush=True)


def _print_summary(receiver: Receiver) -> None:
    counters = receiver.engine.counters
    dropped = ", ".join(f"{count} {reason.value}" for reason, count in counters.dropped.items() if count)
    print(f"{counters.received} frames: {counters.answered} answered, {dropped or '0'} dropped")
    if receiver.service is not None:
        service = receiver.service.counters
        refused = ", ".join(f"{count} {reason}" for reason, count in sorted(service.refused.items()))
        print(f"gRPC: {service.streams} streams, refused: {refused or 'none'}, malformed messages: {service.malformed}")
    if receiver.udp is not None:
        udp, packets = receiver.udp.counters, receiver.udp.inlet.reassembler.counters
        print(
            f"UDP: {udp.datagrams} datagrams, {packets.damaged} damaged; frames: {packets.complete} complete, "
            f"{packets.partial} with slices missing, {packets.lost} lost"
        )
